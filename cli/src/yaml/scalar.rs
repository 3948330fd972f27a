//! Parses an unquoted scalar as kubectl does: by the rules of YAML 1.1, in which `yes` and `on`
//! are true and `010` is eight. A newer parser would validate another object than the one that the
//! cluster gets.

use serde_json::{Number, Value};

/// The meaning of a plain scalar.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            true.into()
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            false.into()
        }
        _ => number(text).map_or_else(|| text.into(), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let first = text.chars().next()?;
    if !(first.is_ascii_digit() || ['+', '-', '.'].contains(&first)) {
        return None;
    }
    let bare = text.replace('_', "");
    let (negative, digits) = match bare.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, bare.strip_prefix('+').unwrap_or(&bare)),
    };
    if let Some(whole) = whole(digits) {
        return if negative {
            Some(i64::try_from(-i128::from(whole)).ok()?.into())
        } else {
            Some(whole.into())
        };
    }
    // Words such as `inf` and `.nan` have no form in JSON.
    let odd = |c: char| !(c.is_ascii_digit() || ['.', 'e', 'E', '+', '-'].contains(&c));
    if digits.contains(odd) || !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Number::from_f64(bare.parse().ok()?)
}

fn whole(digits: &str) -> Option<u64> {
    let radix = |prefix: &str, radix| {
        let rest = digits.strip_prefix(prefix)?;
        // A second sign is none of a number.
        let fits = rest
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        fits.then(|| u64::from_str_radix(rest, radix).ok())?
    };
    if digits.len() > 1 && digits.starts_with('0') {
        return radix("0x", 16)
            .or_else(|| radix("0b", 2))
            .or_else(|| radix("0o", 8))
            .or_else(|| radix("0", 8));
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_mean_what_the_cluster_takes_them_for() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("enabled", json!("enabled")),
            ("8080", json!(8080)),
            ("-1", json!(-1)),
            ("010", json!(8)),
            ("0x1F", json!(31)),
            ("0", json!(0)),
            ("1_000", json!(1000)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("10m", json!("10m")),
            ("1.2.3", json!("1.2.3")),
            ("10.0.0.1", json!("10.0.0.1")),
            ("08", json!(8.0)),
            ("-", json!("-")),
            (".", json!(".")),
            ("++1", json!("++1")),
            ("0x-1", json!("0x-1")),
            (".inf", json!(".inf")),
            ("2026-11-02", json!("2026-11-02")),
            ("18446744073709551615", json!(u64::MAX)),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }
}
