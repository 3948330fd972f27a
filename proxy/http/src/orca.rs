//! Reads the load that an application reports, in the format of ORCA (Open Request Cost
//! Aggregation): in a header of its responses, or in a trailer over gRPC.
//!
//! Only the utilisation in a report is used: the application's own, or without one the CPU's.
//!
//! Claims: calls-64

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue};
use prost::Message as _;

const HEADER: &str = "endpoint-load-metrics";
/// A message in base64.
const TRAILER: &str = "endpoint-load-metrics-bin";

/// Bytes of a report. One with every named metric of a large model server has a few
/// hundred.
const LONGEST: usize = 4096;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    // Over gRPC it is mostly missing.
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The content of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Utilization {
    /// There is none, or none with a utilisation.
    Nothing,
    /// From 0 to 100.
    Percent(u8),
    /// It is no report.
    Unreadable,
}

/// The parts of a report that count: of `xds.data.orca.v3.OrcaLoadReport`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct OrcaReport {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

/// The same in JSON, where a message may be written in either way.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct JsonReport {
    #[serde(alias = "cpuUtilization")]
    cpu_utilization: f64,
    #[serde(alias = "applicationUtilization")]
    application_utilization: f64,
}

/// The report in the head of an answer.
#[must_use]
pub fn in_head(map: &HeaderMap) -> Utilization {
    read(map, HEADER, |value| {
        let text = std::str::from_utf8(value).ok()?;
        let (format, report) = text.split_once(' ')?;
        match format {
            "TEXT" => in_text(report),
            "JSON" => serde_json::from_str(report)
                .ok()
                .map(|report: JsonReport| OrcaReport {
                    cpu_utilization: report.cpu_utilization,
                    application_utilization: report.application_utilization,
                }),
            "BIN" => in_base64(report.as_bytes()),
            _ => None,
        }
    })
}

/// The report in the trailers of an answer.
#[must_use]
pub fn in_trailers(map: &HeaderMap) -> Utilization {
    read(map, TRAILER, in_base64)
}

fn in_base64(value: &[u8]) -> Option<OrcaReport> {
    let bytes = BASE64.decode(value).ok()?;
    OrcaReport::decode(bytes.as_slice()).ok()
}

fn read(
    map: &HeaderMap,
    name: &'static str,
    report: impl Fn(&[u8]) -> Option<OrcaReport>,
) -> Utilization {
    let Some(value) = map.get(name) else {
        return Utilization::Nothing;
    };
    let only = map.get_all(name).iter().nth(1).is_none();
    let fits = |value: &&HeaderValue| only && value.len() <= LONGEST;
    let read = Some(value).filter(fits);
    let read = read.and_then(|value| report(value.as_bytes()));
    match read {
        Some(report) => report.utilization(),
        None => Utilization::Unreadable,
    }
}

/// `name=value`, or `name:value`, with commas between them.
fn in_text(text: &str) -> Option<OrcaReport> {
    let mut report = OrcaReport::default();
    for pair in text.split(',') {
        let (name, value) = pair.split_once(['=', ':'])?;
        let value = || value.trim().parse().ok();
        match name.trim() {
            "cpu_utilization" => report.cpu_utilization = value()?,
            "application_utilization" => report.application_utilization = value()?,
            _ => {}
        }
    }
    Some(report)
}

impl OrcaReport {
    /// Absent and zero are one in a message.
    fn utilization(self) -> Utilization {
        let [own, cpu] = [self.application_utilization, self.cpu_utilization];
        let counts = if own == 0.0 { cpu } else { own };
        match counts {
            counts if !counts.is_finite() || counts < 0.0 => Utilization::Unreadable,
            0.0 => Utilization::Nothing,
            counts => Utilization::Percent((counts * 100.0).round().min(100.0) as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(values: &[&str]) -> Utilization {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(HEADER, HeaderValue::from_str(value).unwrap());
        }
        in_head(&map)
    }

    fn trailer(value: &[u8]) -> Utilization {
        let mut map = HeaderMap::new();
        map.append(TRAILER, HeaderValue::from_bytes(value).unwrap());
        in_trailers(&map)
    }

    #[test]
    fn a_report_is_read_in_each_of_its_forms() {
        for (text, percent) in [
            ("TEXT cpu_utilization=0.3", 30),
            (
                "TEXT cpu_utilization:0.7,application_utilization:0.85,eps:2",
                85,
            ),
            ("TEXT mem_utilization=0.9, cpu_utilization=0.126", 13),
            (
                "JSON {\"cpu_utilization\": 0.3, \"rps_fractional\": 9e3}",
                30,
            ),
            (
                "JSON {\"applicationUtilization\": 1, \"cpuUtilization\": 0.1}",
                100,
            ),
            (
                "JSON {\"named_metrics\": {\"a\": 1}, \"cpu_utilization\": 0.5}",
                50,
            ),
            ("BIN CQAAAAAAAOA/", 50),
            // More than all is all.
            ("TEXT application_utilization=17", 100),
        ] {
            assert_eq!(head(&[text]), Utilization::Percent(percent), "{text}");
        }
        let report = OrcaReport {
            cpu_utilization: 0.2,
            application_utilization: 0.6,
        };
        let bytes = report.encode_to_vec();
        let padded = base64::engine::general_purpose::STANDARD.encode(&bytes);
        for value in [&*padded, padded.trim_end_matches('=')] {
            assert_eq!(
                trailer(value.as_bytes()),
                Utilization::Percent(60),
                "{value}"
            );
        }
    }

    #[test]
    fn without_a_utilisation_nothing_is_said() {
        assert_eq!(in_head(&HeaderMap::new()), Utilization::Nothing);
        assert_eq!(in_trailers(&HeaderMap::new()), Utilization::Nothing);
        for report in [
            "TEXT mem_utilization=0.9",
            "TEXT cpu_utilization=0",
            "JSON {}",
            "JSON {\"named_metrics\": {\"kv_cache\": 0.5}}",
        ] {
            assert_eq!(head(&[report]), Utilization::Nothing, "{report}");
        }
        assert_eq!(trailer(b""), Utilization::Nothing);
    }

    #[test]
    fn whatever_is_no_report_is_refused() {
        let deep = format!("JSON {}", "{\"a\":[".repeat(600));
        let long = format!("TEXT cpu_utilization=0.{}", "3".repeat(LONGEST));
        for report in [
            "",
            "TEXT",
            "TEXT ",
            "TEXT cpu_utilization",
            "TEXT cpu_utilization=",
            "TEXT cpu_utilization=much",
            "TEXT cpu_utilization=NaN",
            "TEXT cpu_utilization=inf",
            "TEXT application_utilization=-1, cpu_utilization=0.5",
            "JSON",
            "JSON 0.5",
            "JSON {\"cpu_utilization\": \"0.5\"}",
            "JSON {\"cpu_utilization\": 1e999}",
            "JSON {\"cpu_utilization\": -0.5}",
            "BIN !",
            "XML <cpu_utilization/>",
            "cpu_utilization=0.5",
            &deep,
            &long,
        ] {
            let short = &report[..report.len().min(60)];
            assert_eq!(head(&[report]), Utilization::Unreadable, "{short}");
        }
        let twice = ["TEXT cpu_utilization=0.5"; 2];
        assert_eq!(head(&twice), Utilization::Unreadable);
        for value in [&b"!"[..], b"CQ", b"\xff\xff", b"//////////8="] {
            assert_eq!(trailer(value), Utilization::Unreadable, "{value:?}");
        }
    }
}
