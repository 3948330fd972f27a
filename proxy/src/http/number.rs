//! Numbers in headers are digits and nothing else. Rust itself reads a plus sign before them as
//! well, which no standard allows there and no proxy writes: what others refuse, or take for
//! something else, must not be a number here.

use std::str::FromStr;

use http::HeaderValue;

/// `None`: no whole number without a sign, or one that is too large.
pub(crate) fn number<N: FromStr>(value: &HeaderValue) -> Option<N> {
    let text = value.to_str().ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        let read = |text| number::<u8>(&HeaderValue::from_static(text));
        for (text, value) in [("0", 0), ("7", 7), ("007", 7), ("255", 255)] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in ["", "+7", "-0", "-7", " 7", "7 ", "7,7", "0x7", "7.0", "256"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
