//! Converts weights: v1alpha1 has Kubernetes quantities, later versions integers.
//!
//! Whole numbers stay what they are, because Flagger and Argo Rollouts read them
//! back. As soon as one weight is a fraction all are counted in thousandths (or
//! finer, where a weight needs it), so that `1` beside `500m` stays 2 to 1.

use serde_json::Value;

/// The largest weight that is stored.
const MOST: i128 = i32::MAX as i128;
/// Longer text is no weight that users mean; it also bounds the arithmetic.
const MAX_TEXT: usize = 64;
/// Thousandths.
const MILLI: i32 = -3;

/// A decimal number: `digits` times ten to the power of `exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal {
    digits: i128,
    exponent: i32,
}

/// What is stored for these weights, position by position.
///
/// Missing weights and null stay so. If one weight is no quantity, or the weights do not fit
/// side by side, all stay as they are: such an object is unreadable as v1alpha4, has no
/// effect, and its status reports that. It must not be an error. The API server converts what
/// another product stored whenever a client lists the kind, and one failure fails the
/// list; a client that writes such weights is refused by the validating webhook.
pub(super) fn to_storage(raw: &[Option<&Value>]) -> Vec<Option<Value>> {
    whole(raw).unwrap_or_else(|| raw.iter().map(|weight| weight.cloned()).collect())
}

/// The weights as whole numbers of 32 bits; `None` if they stay as they are.
fn whole(raw: &[Option<&Value>]) -> Option<Vec<Option<Value>>> {
    let mut numbers = Vec::with_capacity(raw.len());
    for weight in raw {
        match weight {
            None | Some(Value::Null) => numbers.push(None),
            Some(weight) => match parse(weight) {
                Parsed::Number(number) => numbers.push(Some(number)),
                Parsed::NoQuantity => return None,
            },
        }
    }
    let finest = numbers.iter().flatten().map(|n| n.exponent).min();
    let scale = match finest? {
        finest if finest >= 0 => 0,
        finest => finest.min(MILLI),
    };
    let scaled: Vec<Option<i128>> = numbers
        .iter()
        .map(|number| match number {
            None => Some(None),
            Some(number) => at_scale(*number, scale).map(Some),
        })
        .collect::<Option<_>>()?;
    let fits = |n: i128| n.abs() <= MOST;
    let divisor = if scaled.iter().flatten().all(|n| fits(*n)) {
        1
    } else {
        scaled
            .iter()
            .flatten()
            .fold(0, |a, b| gcd(a, b.abs()))
            .max(1)
    };
    scaled
        .iter()
        .zip(raw)
        .map(|(number, raw)| match number {
            None => Some(raw.cloned()),
            Some(number) => {
                let weight = i32::try_from(number / divisor).ok()?;
                Some(Some(weight.into()))
            }
        })
        .collect()
}

fn at_scale(number: Decimal, scale: i32) -> Option<i128> {
    if number.digits == 0 {
        return Some(0);
    }
    let steps = u32::try_from(number.exponent.checked_sub(scale)?).ok()?;
    number.digits.checked_mul(10i128.checked_pow(steps)?)
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

enum Parsed {
    Number(Decimal),
    NoQuantity,
}

fn parse(weight: &Value) -> Parsed {
    let number = match weight {
        Value::Number(number) => quantity(&number.to_string()),
        Value::String(text) => quantity(text),
        _ => None,
    };
    number.map_or(Parsed::NoQuantity, Parsed::Number)
}

/// Reads Kubernetes' quantity: sign, digits with a point, then a suffix of decimal
/// or binary multiples, or an exponent.
fn quantity(text: &str) -> Option<Decimal> {
    if text.len() > MAX_TEXT || !text.is_ascii() {
        return None;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let mut digits: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        digits = digits
            .checked_mul(10)?
            .checked_add(i128::from(digit - b'0'))?;
    }
    let (power, binary) = multiple(suffix)?;
    digits = digits.checked_mul(1024i128.checked_pow(binary)?)?;
    let exponent = power - i32::try_from(fraction.len()).ok()?;
    if text.starts_with('-') {
        digits = -digits;
    }
    Some(shortest(Decimal { digits, exponent }))
}

/// The power of ten and of 1024 that a suffix means.
fn multiple(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 1),
        "Mi" => (0, 2),
        "Gi" => (0, 3),
        "Ti" => (0, 4),
        "Pi" => (0, 5),
        "Ei" => (0, 6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            // Far beyond what fits anywhere, and safe to calculate with.
            (exponent.clamp(-1000, 1000), 0)
        }
    })
}

/// The same number without zeros at its end, so that `1500m` counts as a fraction
/// and `2000m` as whole.
fn shortest(mut number: Decimal) -> Decimal {
    if number.digits == 0 {
        number.exponent = 0;
    }
    while number.digits != 0 && number.digits % 10 == 0 {
        number.digits /= 10;
        number.exponent += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(weights: &Value) -> Value {
        let list = weights.as_array().unwrap();
        let weights = to_storage(&list.iter().map(Some).collect::<Vec<_>>());
        weights.into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn whole_numbers_stay_and_fractions_keep_their_ratio() {
        for (written, wanted) in [
            (json!([90, 10]), json!([90, 10])),
            (json!(["0", "100"]), json!([0, 100])),
            (json!(["1", "500m"]), json!([1000, 500])),
            (json!(["10m", "100m", "1500m"]), json!([10, 100, 1500])),
            (json!(["1.5", "0.5"]), json!([1500, 500])),
            (json!([1.5, 0.5]), json!([1500, 500])),
            (json!(["1k", "1e3"]), json!([1000, 1000])),
            (json!(["2000m", "1.0"]), json!([2, 1])),
            (json!([".5", "1."]), json!([500, 1000])),
            (json!(["1Ki", "0.5Ki"]), json!([1024, 512])),
            (json!(["1u", "1m"]), json!([1, 1000])),
            (json!(["3G", "1G"]), json!([3, 1])),
            (json!(["3000000", "500m"]), json!([6_000_000, 1])),
            (json!([null, "500m"]), json!([null, 500])),
            (json!(["-1", "1"]), json!([-1, 1])),
        ] {
            assert_eq!(stored(&written), wanted, "{written}");
        }
    }

    #[test]
    fn unparsable_quantity_leaves_all_weights_unchanged() {
        for odd in ["50%", "", "m", "1.2.3", "1 ", "e", "1e", "+", "0x1", "١"] {
            let written = json!(["1", odd]);
            assert_eq!(stored(&written), written, "{odd}");
        }
        assert_eq!(stored(&json!([true, 1])), json!([true, 1]));
    }

    #[test]
    fn weights_beyond_combined_32_bits_stay_unchanged() {
        for vast in [
            json!(["1n", "2147483647"]),
            json!(["1E", "1n"]),
            json!(["3", "1e900", "1"]),
            json!(["1e900"]),
            json!([4_294_967_296_i64, 1]),
        ] {
            assert_eq!(stored(&vast), vast);
        }
    }
}
