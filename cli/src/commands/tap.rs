//! `weft tap`: shows requests as they end.
//!
//! Claims: observe-136

pub(crate) mod filters;
pub(crate) mod follow;

use std::fmt::Write as _;

use clap::Args;
use crds::observe::{Direction, TapLine, TapMetadata, TapRequest};
use futures::StreamExt as _;

use self::filters::Filters;
use self::follow::{TapEvent, follow};
use crate::cluster::Cluster;
use crate::console::Console;
use crate::escape;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::Format;

/// Why `-A` is refused where requests are watched.
pub(crate) const IN_ONE: &str = "requests are shown of one namespace";

/// Arguments of `weft tap`.
#[derive(Args, Debug)]
#[command(
    about = "Show requests as they end",
    long_about = "Shows each request that the pods of RES make and serve, when it has ended: a line \
                  each, or with -o json an object each, until it is interrupted. Bodies and queries \
                  are never shown, and headers only where --header names them and value \
                  observe.tapHeaders of the chart allows it. Needs ClusterRole weft-tap in the \
                  namespace; the controller's log and an Event at RES name who watches.",
    after_help = "Example:\n  weft tap deploy/web --to svc/cart --status 5xx"
)]
pub(crate) struct Tap {
    /// KIND/NAME whose requests are shown
    #[arg(value_name = "RES")]
    resource: String,
    #[command(flatten)]
    filters: Filters,
    /// Show this header of requests
    #[arg(long, value_name = "NAME")]
    header: Vec<String>,
}

impl Tap {
    /// Prints requests until the output is closed or the tap ends.
    ///
    /// # Errors
    /// When they cannot be watched. A tap that worked before survives controllers that are away for
    /// a moment.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let format = global.format(&[Format::Table, Format::Json])?;
        global.in_one_namespace(IN_ONE)?;
        let (query, names) = (self.query()?, self.filters.names(&self.resource)?);
        if let Some(caution) = self.filters.caution() {
            console.word(&caution)?;
        }
        let cluster = Cluster::connect(global).await?;
        let mut requests = follow(cluster, &query, names);
        let mut shown = TapCounts::default();
        while let Some(event) = requests.next().await {
            match event? {
                TapEvent::Started => shown.begins(),
                TapEvent::Line(line) => shown.line(&line, format, console)?,
                TapEvent::Word(word) => console.word(&word)?,
            }
        }
        Ok(Conclusion::Yes)
    }

    fn query(&self) -> Result<String, Failure> {
        let mut query = self.filters.query(&self.resource)?;
        for name in &self.header {
            query.append_pair("header", name);
        }
        Ok(query.finish())
    }
}

/// The counts that were printed.
#[derive(Debug, Default)]
struct TapCounts {
    taking_part: Option<(u32, u32)>,
    /// Requests that fit and were not shown.
    left_out: u64,
    /// In the stream before no proxy took part, which was printed then.
    no_participant: bool,
    /// Proxies that refused, in this stream or the one before, which was printed.
    refused: u32,
}

impl TapCounts {
    /// The next stream counts anew.
    fn begins(&mut self) {
        *self = Self {
            no_participant: self.no_participant,
            refused: self.refused,
            ..Self::default()
        };
    }

    fn line(
        &mut self,
        line: &TapLine,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        if let Some(request) = &line.request {
            if format == Format::Json {
                let text = serde_json::to_string(request);
                let text = text.map_err(|error| Failure::unknown(error.to_string()))?;
                console.line(&escape::json(&text))?;
            } else {
                console.line(&escape::plain(&words(request)))?;
            }
        }
        if let Some(metadata) = &line.metadata {
            self.metadata(metadata, console)?;
        }
        Ok(())
    }

    fn metadata(
        &mut self,
        metadata: &TapMetadata,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let taking_part = (metadata.taking_part, metadata.proxies);
        self.refusals(metadata, console)?;
        if metadata.last {
            let no_participant = self.taking_part.is_none() && metadata.taking_part == 0;
            // For those that refused, the reason was printed.
            let is_silent = metadata.refused < metadata.proxies || metadata.proxies == 0;
            if no_participant && is_silent && !self.no_participant {
                console.word(&format!(
                    "0 of {} take part, so no request can be shown; others are away, older than \
                     taps, or have no room for one more: `weft proxies` says which are connected \
                     and how old they are",
                    metadata.proxies
                ))?;
            }
            self.no_participant = no_participant;
        }
        let complete = metadata.taking_part == metadata.proxies;
        // The first look comes before any proxy can have responded.
        let first = self.taking_part.is_none() && metadata.taking_part == 0;
        if self.taking_part != Some(taking_part) && !first {
            console.word(&format!("{} of {} take part", taking_part.0, taking_part.1))?;
        }
        if !first || complete {
            self.taking_part = Some(taking_part);
        }
        let left_out = metadata.matched.saturating_sub(metadata.shown);
        if left_out > self.left_out {
            let more = left_out - self.left_out;
            console.word(&format!(
                "{more} more fit and are not shown; --max-rps raises how many may be"
            ))?;
            self.left_out = left_out;
        }
        Ok(())
    }

    /// Reports at once that proxies do not take part and why: each serves a few taps at a time.
    fn refusals(
        &mut self,
        metadata: &TapMetadata,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let (refused, proxies) = (metadata.refused, metadata.proxies);
        if refused > self.refused {
            let so = if refused >= proxies {
                "no request is shown before another tap of theirs ends"
            } else {
                "only requests of the others are shown"
            };
            console.word(&format!(
                "{refused} of {proxies} take no part: they have no room for another tap beside \
                 those that go on, or are older than taps; {so}"
            ))?;
            self.refused = refused;
        }
        if metadata.last {
            self.refused = refused;
        }
        Ok(())
    }
}

/// One request on one line.
fn words(request: &TapRequest) -> String {
    let time = request.time.split_once('T').map_or("", |(_, time)| time);
    let peer = match request.peer.as_str() {
        "" => "?",
        peer => peer,
    };
    let (from, to) = match request.direction {
        Direction::Outbound => (request.pod.as_str(), peer),
        Direction::Inbound => (peer, request.pod.as_str()),
    };
    let direction = match request.direction {
        Direction::Outbound => "out",
        Direction::Inbound => "in ",
    };
    // Of a head that was refused it may not be known; columns stay where they are.
    let method = match request.method.as_str() {
        "" => "-",
        method => method,
    };
    let target = match format!("{}{}", request.host, request.path) {
        target if target.is_empty() => "-".to_owned(),
        target => target,
    };
    let mtls = match (request.mtls, request.unsent) {
        (true, _) => "mtls",
        (false, true) => "-",
        (false, false) => "plaintext",
    };
    let mut line = format!(
        "{time} {direction} {from} -> {to}:{} {} {method} {target} {} {:.1}ms {}B {mtls}",
        request.port, request.protocol, request.status, request.ms, request.bytes,
    );
    if let Some(status) = request.grpc_status {
        let _ = write!(line, " grpc={status}");
    }
    for (name, value) in [
        ("reason", &request.reason),
        ("identity", &request.identity),
        ("service", &request.service),
        ("backend", &request.backend),
        ("route", &request.route),
        ("trace", &request.trace),
    ] {
        if !value.is_empty() {
            let _ = write!(line, " {name}={value}");
        }
    }
    for header in &request.headers {
        let _ = write!(line, " {}={:?}", header.name, header.value);
    }
    line
}

#[cfg(test)]
mod tests {
    use crds::observe::Header;

    use super::*;
    use crate::console::Streams;

    #[test]
    fn request_is_one_line_that_no_terminal_acts_upon() {
        let request = TapRequest {
            time: "2026-11-02T09:00:00.123Z".to_owned(),
            direction: Direction::Outbound,
            pod: "shop/web-1".to_owned(),
            peer: "shop/cart-1".to_owned(),
            service: "shop/cart".to_owned(),
            port: 8080,
            mtls: true,
            protocol: "http1".to_owned(),
            method: "GET".to_owned(),
            host: "cart".to_owned(),
            path: "/items\u{1b}[2J\n/forged".to_owned(),
            status: 503,
            reason: "overload".to_owned(),
            ms: 1.25,
            bytes: 81,
            headers: vec![Header {
                name: "user-agent".to_owned(),
                value: "\u{1b}]0;x\u{7}".to_owned(),
            }],
            ..TapRequest::default()
        };
        let mut streams = Streams::default();
        let mut console = Console {
            color: true,
            ..streams.console()
        };
        let line = TapLine {
            request: Some(request),
            ..TapLine::default()
        };
        let mut shown = TapCounts::default();
        shown.line(&line, Format::Table, &mut console).unwrap();
        for (proxies, taking_part, matched) in [(4, 0, 0), (4, 3, 10), (4, 3, 30)] {
            let metadata = Some(TapMetadata {
                proxies,
                taking_part,
                matched,
                shown: 10,
                ..TapMetadata::default()
            });
            let line = TapLine {
                metadata,
                ..TapLine::default()
            };
            shown.line(&line, Format::Table, &mut console).unwrap();
        }
        let (out, err) = streams.texts();
        assert_eq!(out.lines().count(), 1, "{out}");
        assert!(!out.contains('\u{1b}') && !out.contains('\u{7}'), "{out:?}");
        assert!(
            out.starts_with(
                "09:00:00.123Z out shop/web-1 -> shop/cart-1:8080 http1 GET cart/items"
            )
        );
        assert!(
            out.contains(" 503 1.2ms 81B mtls reason=overload service=shop/cart"),
            "{out}"
        );
        assert_eq!(
            err,
            "3 of 4 take part\n20 more fit and are not shown; --max-rps raises how many may be\n"
        );
    }

    #[test]
    fn unknown_fields_of_refused_request_keep_tap_columns() {
        let unread = TapRequest {
            protocol: "unknown".to_owned(),
            status: 400,
            ..TapRequest::default()
        };
        assert!(words(&unread).contains(":0 unknown - - 400 0.0ms"));
        let read = TapRequest {
            method: "GET".to_owned(),
            path: "/items".to_owned(),
            ..unread
        };
        assert!(words(&read).contains(":0 unknown GET /items 400 0.0ms"));
        assert!(words(&read).ends_with(" 0B plaintext"));
        let unsent = TapRequest {
            unsent: true,
            ..read
        };
        assert!(words(&unsent).ends_with(" 0B -"), "nothing carried it");
    }

    /// The messages for streams of so many proxies of four, one after the other.
    fn reported(parts: &[u32]) -> String {
        let mut streams = Streams::default();
        let mut console = streams.console();
        let mut shown = TapCounts::default();
        for taking_part in parts {
            shown.begins();
            // No proxy can have responded before the first look.
            for (taking_part, last) in [(0, false), (*taking_part, true)] {
                let metadata = Some(TapMetadata {
                    proxies: 4,
                    taking_part,
                    last,
                    ..TapMetadata::default()
                });
                let line = TapLine {
                    metadata,
                    ..TapLine::default()
                };
                shown.line(&line, Format::Table, &mut console).unwrap();
            }
        }
        let (out, err) = streams.texts();
        assert_eq!(out, "");
        err
    }

    #[test]
    fn tap_refusals_are_reported_once_with_reason() {
        let mut streams = Streams::default();
        let mut console = streams.console();
        let mut shown = TapCounts::default();
        // Two streams in which one of two refuses, two in which both do, and one with neither.
        for refused in [1, 1, 2, 2, 0] {
            shown.begins();
            for (refused, last) in [(0, false), (refused, false), (refused, true)] {
                let metadata = Some(TapMetadata {
                    proxies: 2,
                    taking_part: 0,
                    refused,
                    last,
                    ..TapMetadata::default()
                });
                let line = TapLine {
                    metadata,
                    ..TapLine::default()
                };
                shown.line(&line, Format::Table, &mut console).unwrap();
            }
        }
        let (_, err) = streams.texts();
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 3, "{err}");
        assert!(lines[0].starts_with("1 of 2 take no part: they have no room"));
        assert!(lines[0].ends_with("only requests of the others are shown"));
        assert!(
            lines[1].starts_with("0 of 2 take part, so"),
            "no reason is printed: {err}"
        );
        assert!(
            lines[2].ends_with("before another tap of theirs ends"),
            "{err}"
        );
    }

    #[test]
    fn tap_stream_without_participating_proxies_is_reported_once() {
        let no_participant = reported(&[0]);
        assert!(
            no_participant.starts_with("0 of 4 take part, so"),
            "{no_participant}"
        );
        assert_eq!(no_participant.lines().count(), 1, "{no_participant}");
        assert_eq!(reported(&[0, 0, 0]), no_participant, "the same each time");
        assert_eq!(reported(&[4]), "4 of 4 take part\n");
        let again = format!("{no_participant}4 of 4 take part\n{no_participant}");
        assert_eq!(reported(&[0, 4, 0]), again);
    }
}
