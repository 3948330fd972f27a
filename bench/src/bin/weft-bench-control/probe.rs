//! What another client notices at the API server meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::api::Api;
use crate::figures::Delays;

/// Between two calls.
const EVERY: Duration = Duration::from_millis(50);
const OBJECT: &str = "/api/v1/namespaces/default/configmaps/bench-probe";

/// Reads and writes one small object again and again, as any client would.
pub(crate) struct Probe {
    task: JoinHandle<()>,
    delays: Arc<Mutex<Vec<f64>>>,
}

impl Probe {
    pub(crate) async fn prepare(api: &Api) -> Result<()> {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bench-probe"}});
        api.post("/api/v1/namespaces/default/configmaps", &object)
            .await?;
        Ok(())
    }

    pub(crate) fn start(api: &Api) -> Self {
        let delays = Arc::new(Mutex::new(Vec::new()));
        let (api, kept) = (api.clone(), Arc::clone(&delays));
        let task = tokio::spawn(async move {
            let mut turns = interval(EVERY);
            for turn in 0.. {
                turns.tick().await;
                let started = Instant::now();
                let change = json!({"data": {"turn": format!("{turn}")}});
                let answer = if turn % 2 == 0 {
                    api.get(OBJECT).await
                } else {
                    api.merge(OBJECT, &change).await
                };
                if let Err(error) = answer {
                    eprintln!("weft-bench-control: probe: {error:#}");
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(started.elapsed().as_secs_f64());
            }
        });
        Self { task, delays }
    }

    pub(crate) fn end(self) -> Delays {
        self.task.abort();
        let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        Delays::of_seconds(std::mem::take(&mut *delays))
    }
}

/// Requests that the API server has answered so far, by what they were, and those
/// that it rejected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    by_kind: BTreeMap<String, u64>,
    pub(crate) rejected: u64,
}

impl Requests {
    pub(crate) async fn so_far(api: &Api) -> Result<Self> {
        Ok(Self::read(&api.text("/metrics").await?))
    }

    fn read(text: &str) -> Self {
        let mut requests = Self::default();
        for line in text.lines() {
            let Some((head, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let count = value.parse::<f64>().unwrap_or_default() as u64;
            if let Some(labels) = head.strip_prefix("apiserver_request_total{") {
                let label = |name: &str| {
                    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                    Some(rest.split_once('"')?.0)
                };
                let kind = format!(
                    "{} {}",
                    label("verb").unwrap_or_default(),
                    label("resource").unwrap_or_default()
                );
                *requests.by_kind.entry(kind).or_default() += count;
            } else if head.starts_with("apiserver_flowcontrol_rejected_requests_total") {
                requests.rejected += count;
            }
        }
        requests
    }

    /// What came since `before`, the commonest first.
    pub(crate) fn since(&self, before: &Self) -> Vec<(String, u64)> {
        let mut news: Vec<(String, u64)> = self
            .by_kind
            .iter()
            .map(|(kind, count)| {
                let known = before.by_kind.get(kind).copied().unwrap_or_default();
                (kind.clone(), count.saturating_sub(known))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        news.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::Requests;

    #[test]
    fn request_counts_are_summed_over_codes_as_differences() {
        let sample = |code, count| {
            format!(
                "apiserver_request_total{{code=\"{code}\",group=\"\",resource=\"pods\",verb=\"LIST\"}} {count}\n"
            )
        };
        let before = Requests::read(&sample(200, 3));
        let now = Requests::read(&(sample(200, 5) + &sample(410, 1)));
        assert_eq!(now.since(&before), [("LIST pods".to_owned(), 3)]);
    }
}
