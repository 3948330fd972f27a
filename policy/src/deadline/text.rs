//! Parses and writes times in headers: `grpc-timeout` as gRPC has it, `weft-timeout` and
//! `weft-rest` in milliseconds. Written without allocation; what cannot be read is counted and
//! ignored, because a wrong guess would end calls for which a caller waits.

use std::fmt;
use std::time::Duration;

/// Digits that gRPC allows. Ours have the same bound, which is more than a day.
const DIGITS: usize = 8;
const MOST: u128 = 99_999_999;

/// A header's value that is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("is empty or has no unit")]
    NoUnit,
    #[error("has another unit")]
    Unit,
    #[error("must be 1 to {DIGITS} digits and a unit")]
    Digits,
}

/// A header's value. Lies on the stack: it is written for each request with a deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Printed {
    /// Digits and at most two letters.
    bytes: [u8; DIGITS + 2],
    len: u8,
}

impl Printed {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// `number` is at most [`MOST`].
    fn of(number: u128, unit: &[u8]) -> Self {
        let mut digits = [0; DIGITS];
        let mut first = DIGITS;
        let mut left = number.min(MOST);
        loop {
            first -= 1;
            digits[first] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 || first == 0 {
                break;
            }
        }
        let (mut bytes, count) = ([0; DIGITS + 2], DIGITS - first);
        bytes[..count].copy_from_slice(&digits[first..]);
        bytes[count..count + unit.len()].copy_from_slice(unit);
        Self {
            bytes,
            len: (count + unit.len()) as u8,
        }
    }
}

impl fmt::Debug for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// The value of `grpc-timeout`.
pub fn parse_grpc_timeout(value: &[u8]) -> Result<Duration, Unreadable> {
    let (unit, digits) = value.split_last().ok_or(Unreadable::NoUnit)?;
    let number = || number(digits);
    match unit {
        b'H' => Ok(Duration::from_secs(number()? * 3600)),
        b'M' => Ok(Duration::from_secs(number()? * 60)),
        b'S' => Ok(Duration::from_secs(number()?)),
        b'm' => Ok(Duration::from_millis(number()?)),
        b'u' => Ok(Duration::from_micros(number()?)),
        b'n' => Ok(Duration::from_nanos(number()?)),
        b'0'..=b'9' => Err(Unreadable::NoUnit),
        _ => Err(Unreadable::Unit),
    }
}

/// In the finest unit that has room, but no finer than a microsecond: at most 100 s in
/// microseconds, 27 hours in milliseconds. Never longer than it is.
#[must_use]
pub fn print_grpc_timeout(left: Duration) -> Printed {
    let seconds = u128::from(left.as_secs());
    let units: [(u128, &[u8]); 5] = [
        (left.as_micros(), b"u"),
        (left.as_millis(), b"m"),
        (seconds, b"S"),
        (seconds / 60, b"M"),
        (seconds / 3600, b"H"),
    ];
    let fits = units.into_iter().find(|(number, _)| *number <= MOST);
    let (number, unit) = fits.unwrap_or((MOST, b"H"));
    Printed::of(number, unit)
}

/// The value of `weft-timeout` and of `weft-rest`: `1840ms`.
pub fn parse_millis(value: &[u8]) -> Result<Duration, Unreadable> {
    match value.strip_suffix(b"ms") {
        Some(digits) => Ok(Duration::from_millis(number(digits)?)),
        None if value.last().is_none_or(u8::is_ascii_digit) => Err(Unreadable::NoUnit),
        None => Err(Unreadable::Unit),
    }
}

/// Never longer than it is, and at most 27 hours.
#[must_use]
pub fn print_millis(left: Duration) -> Printed {
    Printed::of(left.as_millis(), b"ms")
}

fn number(digits: &[u8]) -> Result<u64, Unreadable> {
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Unreadable::Digits);
    }
    let value = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    Ok(digits.iter().fold(0, value))
}
