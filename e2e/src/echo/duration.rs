//! Durations as people type them.
//!
//! Of its own, because the application that tests call must not share what they test.

use std::time::Duration;

use anyhow::{Context as _, bail};

/// `200ms`, `5s`, `2m`.
pub fn parse(raw: &str) -> anyhow::Result<Duration> {
    let digits = raw.find(|c: char| !c.is_ascii_digit()).unwrap_or(raw.len());
    let (number, unit) = raw.split_at(digits);
    let number: u64 = number
        .parse()
        .with_context(|| format!("{raw} is not a duration such as 200ms, 5s, 2m"))?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        _ => bail!("{raw} needs a unit: ms, s or m"),
    };
    Ok(Duration::from_secs(
        number.checked_mul(seconds).context("too long")?,
    ))
}
