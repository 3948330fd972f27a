//! The access log: one JSON line per request on standard output, off unless configured.
//!
//! A line holds what metrics must not: path, host and trace id, each escaped
//! and cut, so that no caller can forge a line, hide or turn part of one on a terminal, or fill a
//! disk faster than it sends requests. No request waits for the reader of standard
//! output: a line that finds the queue full is lost and counted.
//!
//! Each workload decides whether and what it logs; the queue is the process's, as standard output
//! is.
//!
//! Claims: observe-101, observe-16

use std::sync::LazyLock;
use std::time::Duration;

use policy::origin::Origin;
use policy::terminal::escaped_json;
use runtime::log_writer::{FLUSH_WITHIN, LogWriter};
use serde::Serialize;

/// Longest text of one field, in bytes.
const FIELD_LIMIT: usize = 256;

#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    pub direction: &'static str,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub status: u16,
    pub reason: &'a str,
    pub service: &'a str,
    pub backend: &'a str,
    pub peer: &'a str,
    /// What chose the backend, or allowed or refused the call; empty where nothing did.
    #[serde(serialize_with = "text")]
    pub rule: Option<&'a Origin>,
    /// The route of the own workload that describes the request; empty where none does, and
    /// for calls of the pod's own.
    pub route: &'a str,
    pub trace: Option<&'a str>,
    /// The proxy's own span of that trace, where it is recorded.
    pub span: Option<&'a str>,
    /// The FaultExperiment that harmed the call, as `namespace/name`; left out where none did.
    #[serde(rename = "weft.fault", skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'a str>,
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Duration,
    pub bytes: u64,
}

fn milliseconds<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value.as_secs_f64() * 1e6).round() / 1e3)
}

fn text<S: serde::Serializer>(value: &Option<&Origin>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(origin) => serializer.collect_str(origin),
        None => serializer.serialize_str(""),
    }
}

/// At most [`FIELD_LIMIT`] bytes of `text`, on a character boundary.
#[must_use]
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(FIELD_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Of all workloads. Started by the first line. Without a thread there is no log.
static LINES: LazyLock<Option<LogWriter>> =
    LazyLock::new(|| LogWriter::to("access log", std::io::stdout()).ok());

/// Queues the line. A closed standard output loses it, nothing else.
pub(crate) fn write(line: &Line<'_>) {
    if let Ok(text) = written(line)
        && let Some(lines) = &*LINES
    {
        lines.write(text.into_bytes());
    }
}

/// The line as it is written, with its end.
fn written(line: &Line<'_>) -> serde_json::Result<String> {
    let mut text = escaped_json(serde_json::to_string(line)?);
    text.push('\n');
    Ok(text)
}

/// Waits until what was queued is written, for a moment at most.
pub fn flush() {
    if let Some(Some(lines)) = LazyLock::get(&LINES) {
        lines.flush(FLUSH_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::origin::Origin;

    use super::{Line, cut, written};

    #[test]
    fn a_line_stays_one_line_whatever_the_path_holds() {
        let line = Line {
            direction: "inbound",
            method: "GET",
            host: "a",
            path: "/x\n{\"forged\":1}\u{1b}\u{202e}caf\u{e9}\u{9b}2J",
            status: 200,
            reason: "",
            service: "",
            backend: "",
            peer: "",
            rule: None,
            route: "",
            trace: None,
            span: None,
            fault: None,
            latency: Duration::from_micros(1500),
            bytes: 3,
        };
        let text = written(&line).unwrap();
        let text = text.strip_suffix('\n').unwrap();
        assert!(!text.contains('\n') && !text.contains('\u{1b}'));
        assert!(
            text.contains("\\u202ecaf\u{e9}\\u009b2J"),
            "a terminal acts upon it: {text:?}"
        );
        let read: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(read["path"], line.path, "it means something else");
        assert!(text.contains("\"latency_ms\":1.5"));
        assert!(text.contains("\"rule\":\"\",\"route\":\"\""), "{text}");
        assert!(!text.contains("fault"), "{text}");
        let split = Origin::new("TrafficSplit", "shop", "web");
        let line = Line {
            rule: Some(&split),
            route: "cart/item",
            fault: Some("shop/slow"),
            ..line
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.contains("\"weft.fault\":\"shop/slow\""), "{text}");
        assert!(text.contains("\"route\":\"cart/item\""), "{text}");
        assert!(
            text.contains("\"rule\":\"TrafficSplit shop/web\""),
            "{text}"
        );
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = "ä".repeat(200);
        assert_eq!(cut(&long).len(), 256);
        // One byte later the bound lies within a character.
        assert_eq!(cut(&format!("a{long}")).len(), 255);
        assert_eq!(cut("short"), "short");
    }
}
