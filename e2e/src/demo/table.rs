//! The demo's view as text, which is a pure function of it.
//!
//! `weft-demo` decides whether a line overwrites the one before or follows it.

use std::fmt::Write as _;

use super::{call::Call, kept::percent, names::NAMESPACE, promise::View};

/// Lines without escape codes; how they reach the screen is the caller's matter.
pub fn render(view: &View) -> String {
    let mut text = format!(
        "Weft demo: namespace {NAMESPACE}, {:.0} s of load, as the proxies counted it\n\n",
        view.seconds
    );
    row(
        &mut text,
        ["CALL", "REQUESTS", "RATE", "SUCCESS", "MTLS", "P50", "P99"],
    );
    for call in &view.allowed {
        calls(
            &mut text,
            call,
            view.seconds,
            &percent(call.successes, call.requests),
        );
        for (backend, requests) in &call.backends {
            let name = backend.rsplit('/').next().unwrap_or(backend);
            let share = percent(*requests, call.requests);
            row(
                &mut text,
                [
                    &format!("   {name}"),
                    &requests.to_string(),
                    "",
                    &share,
                    "",
                    "",
                    "",
                ],
            );
        }
    }
    calls(&mut text, &view.refused, view.seconds, "refused");
    text.push('\n');
    for promise in view.promises() {
        let mark = if promise.kept { "kept" } else { "BROKEN" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark:<7} {:<8} {}", promise.what, promise.seen);
    }
    text
}

fn calls(text: &mut String, call: &Call, seconds: f64, success: &str) {
    let rate = format!("{:.1}/s", call.requests / seconds.max(1.0));
    row(
        text,
        [
            &format!("{} -> {}", call.from, call.to),
            &call.requests.to_string(),
            &rate,
            success,
            &percent(call.mtls, call.requests),
            &millis(call.p50),
            &millis(call.p99),
        ],
    );
}

fn row(text: &mut String, cells: [&str; 7]) {
    let [name, requests, rate, success, mtls, p50, p99] = cells;
    let line = format!("{name:<18}{requests:>9}{rate:>9}{success:>9}{mtls:>9}{p50:>10}{p99:>10}");
    text.push_str(line.trim_end());
    text.push('\n');
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), |seconds| format!("{:.1} ms", seconds * 1000.0))
}
