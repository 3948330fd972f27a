//! The queries of an alert, without the thresholds that keep it quiet in a healthy mesh: each
//! must have a result. `make eyes` uses this file too.

/// What stands between two parts of an alert.
const BETWEEN: [&str; 3] = ["and", "or", "unless"];

/// The parts of an expression, each without the comparison that it ends with.
pub(crate) fn without_thresholds(expr: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut quoted, mut compared) = (0_usize, false, false);
    let mut rest = expr;
    while let Some(letter) = rest.chars().next() {
        let outside = depth == 0 && !quoted;
        let length = if is_name(letter) {
            rest.find(|other: char| !is_name(other))
                .unwrap_or(rest.len())
        } else {
            letter.len_utf8()
        };
        let (word, behind) = rest.split_at(length);
        rest = behind;
        if outside && BETWEEN.contains(&word) {
            parts.push(String::new());
            compared = false;
            continue;
        }
        match letter {
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            '<' | '>' | '=' | '!' if outside => compared = true,
            _ => {}
        }
        if !compared && let Some(part) = parts.last_mut() {
            part.push_str(word);
        }
    }
    parts.iter().map(|part| bare(part).to_owned()).collect()
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// Without the labels that it is joined by to the part before, and of `absent(...)` what is
/// there while all is well.
fn bare(part: &str) -> &str {
    let part = part.trim();
    let joined = part
        .strip_prefix("on")
        .map(str::trim_start)
        .and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let part = joined.map_or(part, |(_, behind)| behind.trim_start());
    let inner = part.strip_prefix("absent(");
    inner
        .and_then(|inner| inner.strip_suffix(')'))
        .unwrap_or(part)
}

#[test]
fn an_alert_is_taken_apart_where_it_compares() {
    let cases: [(&str, &[&str]); 7] = [
        ("a:ratio < 0.95 and b > 0.1", &["a:ratio", "b"]),
        (
            "sum by (x) (rate(c{y=~\"1|2\",z!=\"or\"}[5m])) > 0\nor\nsum(d >= 1) > 0",
            &[
                "sum by (x) (rate(c{y=~\"1|2\",z!=\"or\"}[5m]))",
                "sum(d >= 1)",
            ],
        ),
        ("e - time() < 20 * 86400", &["e - time()"]),
        (
            "sum(f) > 0 unless on () count(g) > 0",
            &["sum(f)", "count(g)"],
        ),
        ("absent(h)", &["h"]),
        ("on_call == 0", &["on_call"]),
        ("min(i) <= time() - j", &["min(i)"]),
    ];
    for (expr, parts) in cases {
        assert_eq!(without_thresholds(expr), parts, "{expr}");
    }
}
