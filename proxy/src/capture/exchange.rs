//! The messages between a pod and the agent of its node, by which the pod requests redirection
//! rules: one line of JSON each.
//!
//! The pod listens and the agent connects, at an abstract socket that the pod's network namespace
//! alone has. So nothing listens on a node, and no egress policy is in the way.

use std::io;

use serde::{Deserialize, Serialize};
use socket2::SockAddr;

use crate::capture::settings::{BadArguments, Settings, Then, cidrs, ports};

/// Abstract: it has no file, and ends with the process that listens.
const SOCKET: &str = "\0weft-capture";

/// Bytes of a line with its end. The longest skip lists take half of it.
pub(super) const LONGEST_LINE: usize = 16 * 1024;

pub(super) fn address() -> io::Result<SockAddr> {
    SockAddr::unix(SOCKET)
}

/// What a pod requests: its skip lists, as `capture` takes them. A list that is not known could
/// be one by which more is redirected, so such a request is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct CaptureRequest {
    skip_inbound_ports: String,
    skip_outbound_ports: String,
    skip_outbound_cidrs: String,
}

impl CaptureRequest {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            skip_inbound_ports: joined(&settings.skip_inbound_ports),
            skip_outbound_ports: joined(&settings.skip_outbound_ports),
            skip_outbound_cidrs: joined(&settings.skip_outbound_cidrs),
        }
    }

    /// # Errors
    /// The list that cannot be read, or that is longer than `capture` takes.
    pub(super) fn settings(&self) -> Result<Settings, BadArguments> {
        Ok(Settings {
            skip_inbound_ports: ports("skipInboundPorts", &self.skip_inbound_ports)?,
            skip_outbound_ports: ports("skipOutboundPorts", &self.skip_outbound_ports)?,
            skip_outbound_cidrs: cidrs("skipOutboundCidrs", &self.skip_outbound_cidrs)?,
            then: Then::ByNode,
        })
    }
}

fn joined(entries: &[impl ToString]) -> String {
    let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
    entries.join(",")
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum CaptureAnswer {
    /// The rules are there.
    #[serde(rename_all = "camelCase")]
    Captured {
        /// The kernel cannot distinguish packets that the pod forwards.
        forwarded_too: bool,
    },
    /// Nothing was changed, for this reason.
    Refused { reason: String },
}

/// A message as a line.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use policy::protocol::MAX_PORT_RANGES;

    use super::*;
    use crate::capture::settings::MAX_NETS;

    fn settings(arguments: &[String]) -> Settings {
        let by_node = ["--by-node".to_owned()];
        Settings::from_arguments([&by_node[..], arguments].concat()).unwrap()
    }

    #[test]
    fn request_with_longest_lists_fits_and_arrives_unchanged() {
        let range = |n: usize| format!("{}-{}", 50_000 + 3 * n, 50_001 + 3 * n);
        let ports: Vec<_> = (0..MAX_PORT_RANGES).map(range).collect();
        let net = |n: usize| format!("2001:db8:1111:2222:3333:4444:5555:{:x}/127", 0x1000 + 2 * n);
        let nets: Vec<_> = (0..MAX_NETS).map(net).collect();
        let settings = settings(&[
            format!("--skip-inbound-ports={}", ports.join(",")),
            format!("--skip-outbound-ports={}", ports.join(",")),
            format!("--skip-outbound-cidrs={}", nets.join(",")),
        ]);
        let line = line(&CaptureRequest::of(&settings)).unwrap();
        assert!(line.len() < LONGEST_LINE, "{} bytes", line.len());
        let read: CaptureRequest = serde_json::from_slice(&line).unwrap();
        assert_eq!(read.settings().unwrap(), settings);
    }

    #[test]
    fn request_of_unknown_or_wrong_lists_is_refused() {
        let empty: CaptureRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(empty.settings().unwrap(), settings(&[]));
        for unknown in [r#"{"captureDns": true}"#, "[1]", "7", "\"x\"", ""] {
            assert!(
                serde_json::from_str::<CaptureRequest>(unknown).is_err(),
                "{unknown}"
            );
        }
        let long = vec!["10.0.0.0/8"; MAX_NETS + 1].join(",");
        for (list, value) in [
            ("skipInboundPorts", "0-x"),
            ("skipOutboundPorts", "70000"),
            ("skipOutboundCidrs", "10.0.0.0/33"),
            ("skipOutboundCidrs", long.as_str()),
        ] {
            let request = serde_json::json!({ (list): value });
            let request: CaptureRequest = serde_json::from_value(request).unwrap();
            let message = request.settings().unwrap_err().to_string();
            assert!(message.contains(list), "{message}");
        }
    }
}
