//! A live query for the configuration that a proxy holds, as the proxy reports it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use wire::v1;
use wire::v1::answered::What as Answered;
use wire::v1::ask::What as Question;

use super::{LiveQueries, TooMany};

/// A proxy answers within milliseconds; a user waits for it.
const WITHIN: Duration = Duration::from_secs(3);
/// Resources of one proxy: 4 096 addresses, their endpoints, and as many rules. Each
/// costs some hundred bytes in the answer.
const MAX_RESOURCES: usize = 20_000;
/// Bytes of all parts. A proxy has the same bound, but its pod may answer for it.
const MAX_BYTES: usize = 4 << 20;

/// Why it is not known what a proxy holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigUnavailable {
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("the proxy reports: {0}")]
    Refused(String),
    #[error("the proxy is not connected, or takes no queries")]
    Away,
    #[error("the proxy did not answer within {} s", WITHIN.as_secs())]
    Late,
    #[error("a part of the answer is missing or is too much")]
    Broken,
}

/// What the proxy of a pod holds, as its page `/config` shows it.
///
/// # Errors
/// When it does not say so, whole and in time.
pub(crate) async fn held_config(
    live_queries: &LiveQueries,
    uid: &Arc<str>,
) -> Result<Value, ConfigUnavailable> {
    let question = Question::Config(v1::ConfigAsk {});
    let uids = std::slice::from_ref(uid);
    let mut answers = live_queries.query(question, uids, WITHIN)?;
    let collecting = async {
        let mut config = PartialConfig::default();
        while let Some(answer) = answers.next().await {
            match answer.what {
                Some(Answered::Config(part)) => {
                    if config.add(part)? {
                        return Ok(config.page);
                    }
                }
                Some(Answered::Refused(why)) => {
                    return Err(ConfigUnavailable::Refused(cut(&why)));
                }
                Some(
                    Answered::Record(_)
                    | Answered::Summary(_)
                    | Answered::Trial(_)
                    | Answered::Example(_),
                ) => return Err(ConfigUnavailable::Broken),
                None => return Err(ConfigUnavailable::Away),
            }
        }
        Err(ConfigUnavailable::Away)
    };
    timeout(WITHIN, collecting)
        .await
        .unwrap_or(Err(ConfigUnavailable::Late))
}

/// Characters of a proxy's words that are passed on.
fn cut(words: &str) -> String {
    words.chars().take(200).collect()
}

#[derive(Debug, Default)]
struct PartialConfig {
    /// Number of the next part.
    next: u32,
    bytes: usize,
    page: Value,
    resources: Map<String, Value>,
}

impl PartialConfig {
    /// Takes the next part; true with the last.
    fn add(&mut self, part: v1::HeldConfig) -> Result<bool, ConfigUnavailable> {
        let all = self.resources.len() + part.resources.len();
        self.bytes += part.encoded_len();
        if part.part != self.next || all > MAX_RESOURCES || self.bytes > MAX_BYTES {
            return Err(ConfigUnavailable::Broken);
        }
        if self.next == 0 {
            self.page = json!({
                "identity": part.identity,
                "enforcement": part.enforcement,
                "mtls": part.mtls,
                "draining": part.draining,
            });
        }
        self.next += 1;
        let resources = part.resources.into_iter();
        self.resources
            .extend(resources.map(|resource| (resource.name, Value::String(resource.version))));
        if part.last {
            self.page["resources"] = Value::Object(std::mem::take(&mut self.resources));
        }
        Ok(part.last)
    }
}
