//! Reads the trace headers, without a copy and in one pass.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    B3, B3_FLAGS, B3_SAMPLED, B3_SPAN, B3_TRACE, Context, Format, Ids, SamplingDecision,
    TRACEPARENT, single,
};

/// Length of `traceparent` in its first version: `00-`, trace, span and flags.
const FIRST_VERSION: usize = 55;

/// What the headers carry: the first format that is valid. `None`: no trace has started.
#[must_use]
pub fn read(map: &HeaderMap) -> Option<Context> {
    // Most messages say nothing, and to look for each name by its hash costs more.
    if !map.keys().any(may_say) {
        return None;
    }
    Format::ALL.iter().find_map(|format| of(*format, map))
}

/// No other header has a name like these.
fn may_say(name: &HeaderName) -> bool {
    matches!(
        name.as_str().as_bytes(),
        b"b3" | b"traceparent" | [b'x', b'-', b'b', b'3', ..]
    )
}

/// What they say in one format; `None` where they do not, or wrongly.
pub(super) fn of(format: Format, map: &HeaderMap) -> Option<Context> {
    match format {
        Format::TraceContext => traceparent(single(map, &TRACEPARENT)?.as_bytes()),
        Format::B3 => b3(single(map, &B3)?.as_bytes()),
        Format::B3Multi => b3_multi(map),
    }
}

/// `version-trace-span-flags` in lower case. Later versions may say more behind that.
fn traceparent(text: &[u8]) -> Option<Context> {
    let (known, more) = text.split_at_checked(FIRST_VERSION)?;
    let [
        b'0'..=b'9' | b'a'..=b'f',
        b'0'..=b'9' | b'a'..=b'f',
        b'-',
        rest @ ..,
    ] = known
    else {
        return None;
    };
    let of_first = known.starts_with(b"00");
    let whole = if of_first {
        more.is_empty()
    } else {
        more.is_empty() || more.starts_with(b"-")
    };
    if known.starts_with(b"ff") || !whole || rest.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let (trace, rest) = field(rest, 32)?;
    let (span, flags) = field(rest, 16)?;
    let flags = hex(flags)?;
    Some(Context {
        ids: Some(ids(trace, span)?),
        sampling: if flags & 1 == 1 {
            SamplingDecision::Sampled
        } else {
            SamplingDecision::Unsampled
        },
    })
}

/// `trace-span-sampling-parent`, the last two may be missing; or a sampling decision alone.
fn b3(text: &[u8]) -> Option<Context> {
    if let [sampling] = text {
        let sampling = b3_sampling(&[*sampling])?;
        return Some(Context {
            ids: None,
            sampling,
        });
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let ids = b3_ids(parts.next()?, parts.next()?)?;
    let sampling = parts
        .next()
        .map_or(Some(SamplingDecision::Open), b3_sampling)?;
    let parent = parts.next();
    if parent.is_some_and(|parent| parent.len() != 16 || hex(parent).is_none()) {
        return None;
    }
    parts.next().is_none().then_some(Context {
        ids: Some(ids),
        sampling,
    })
}

fn b3_multi(map: &HeaderMap) -> Option<Context> {
    let debug = text(map, &B3_FLAGS) == Some(b"1");
    let sampling = match text(map, &B3_SAMPLED) {
        _ if debug => SamplingDecision::Sampled,
        // As the first tracers wrote it.
        Some(b"true") => SamplingDecision::Sampled,
        Some(b"false") => SamplingDecision::Unsampled,
        Some(b"d") => return None,
        Some(sampling) => b3_sampling(sampling)?,
        None if map.contains_key(&B3_SAMPLED) => return None,
        None => SamplingDecision::Open,
    };
    if map.contains_key(&B3_TRACE) || map.contains_key(&B3_SPAN) {
        let ids = b3_ids(text(map, &B3_TRACE)?, text(map, &B3_SPAN)?)?;
        return Some(Context {
            ids: Some(ids),
            sampling,
        });
    }
    // Of no trace, nothing is said without a sampling decision.
    (sampling != SamplingDecision::Open).then_some(Context {
        ids: None,
        sampling,
    })
}

fn text<'a>(map: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    single(map, name).map(HeaderValue::as_bytes)
}

fn b3_sampling(text: &[u8]) -> Option<SamplingDecision> {
    match text {
        b"1" | b"d" => Some(SamplingDecision::Sampled),
        b"0" => Some(SamplingDecision::Unsampled),
        _ => None,
    }
}

/// A trace of 64 or 128 bits, and a span.
fn b3_ids(trace: &[u8], span: &[u8]) -> Option<Ids> {
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    ids(trace, span)
}

fn ids(trace: &[u8], span: &[u8]) -> Option<Ids> {
    let trace = hex(trace)?;
    let parent = u64::try_from(hex(span)?).ok()?;
    (trace != 0 && parent != 0).then_some(Ids { trace, parent })
}

/// What stands before a dash at `length`, and what behind it.
fn field(text: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (field, rest) = text.split_at_checked(length)?;
    Some((field, rest.strip_prefix(b"-")?))
}

/// At most 32 digits.
fn hex(text: &[u8]) -> Option<u128> {
    let (high, low) = text.split_at(text.len().saturating_sub(16));
    Some(u128::from(half(high)?) << 64 | u128::from(half(low)?))
}

/// At most 16 digits. All are looked at before it is known whether each is one.
fn half(text: &[u8]) -> Option<u64> {
    let (mut value, mut all) = (0, 0);
    for byte in text {
        let digit = DIGITS[usize::from(*byte)];
        value = value << 4 | u64::from(digit & 0xf);
        all |= digit;
    }
    (all != NO_DIGIT).then_some(value)
}

/// What each byte is worth as a hexadecimal digit.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};
const NO_DIGIT: u8 = 0xff;
