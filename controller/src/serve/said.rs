//! What a proxy said of itself on its stream, cut to a size that can be kept and passed on.

use std::time::{SystemTime, UNIX_EPOCH};

use wire::capability::Capabilities;
use wire::v1;

/// Characters of a proxy's version that are kept.
const VERSION_LIMIT: usize = 64;
/// Characters of the serial number: 20 bytes in hex.
const SERIAL_LIMIT: usize = 64;
/// Characters of an authority's name.
const ISSUER_LIMIT: usize = 256;

/// See the module header.
#[derive(Debug)]
pub(super) struct Said {
    version: String,
    lacks: Vec<String>,
    status: Option<v1::ProxyStatus>,
    /// Milliseconds by which its clock was ahead of ours.
    clock_ahead: i64,
}

impl Said {
    /// What it said in Hello.
    pub(super) fn hello(hello: &v1::Hello) -> Self {
        let capabilities = Capabilities::named(&hello.capabilities);
        Self {
            version: cut(&hello.proxy_version, VERSION_LIMIT),
            lacks: capabilities.missing().map(str::to_owned).collect(),
            status: None,
            clock_ahead: 0,
        }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// What it says of itself, at this time of ours.
    pub(super) fn status(&mut self, status: v1::ProxyStatus, now: SystemTime) {
        let ours = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ours = u64::try_from(ours.as_millis()).unwrap_or(u64::MAX);
        let ahead = i128::from(status.now) - i128::from(ours);
        self.clock_ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        let certificate = status.certificate.map(|certificate| v1::Certificate {
            serial: cut(&certificate.serial, SERIAL_LIMIT),
            issuer: cut(&certificate.issuer, ISSUER_LIMIT),
            ..certificate
        });
        self.status = Some(v1::ProxyStatus {
            certificate,
            ..status
        });
    }

    /// Adds it to what is told of the proxy.
    pub(super) fn add_to(&self, state: &mut v1::ProxyState) {
        state.version.clone_from(&self.version);
        state.lacks.clone_from(&self.lacks);
        state.status.clone_from(&self.status);
        state.clock_ahead = self.clock_ahead;
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_proxy_says_is_cut_and_its_clock_compared() {
        let long = "x".repeat(1 << 20);
        let mut said = Said::hello(&v1::Hello {
            proxy_version: long.clone(),
            capabilities: vec!["telemetry".to_owned(), long.clone()],
            ..v1::Hello::default()
        });
        let certificate = v1::Certificate {
            serial: long.clone(),
            issuer: long,
            not_after: u64::MAX,
        };
        let status = v1::ProxyStatus {
            certificate: Some(certificate),
            now: 4_000,
            ..v1::ProxyStatus::default()
        };
        let now = UNIX_EPOCH + Duration::from_millis(10_500);
        said.status(status, now);
        let mut state = v1::ProxyState::default();
        said.add_to(&mut state);
        assert_eq!(state.clock_ahead, -6_500);
        let lacks = |name: &str| state.lacks.iter().any(|one| one == name);
        assert!(lacks("extended-rule") && !lacks("telemetry"), "{state:?}");
        assert!(prost::Message::encoded_len(&state) < 1024);
        said.status(
            v1::ProxyStatus {
                now: u64::MAX,
                ..v1::ProxyStatus::default()
            },
            now,
        );
        said.add_to(&mut state);
        assert_eq!(state.clock_ahead, i64::MAX);
    }
}
