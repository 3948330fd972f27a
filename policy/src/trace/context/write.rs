//! Writes the trace headers that a message is passed on with.

use http::{HeaderMap, HeaderValue};

use super::read::of;
use super::{
    B3, B3_FLAGS, B3_PARENT, B3_SAMPLED, B3_SPAN, B3_TRACE, Context, Format, Onward,
    SamplingDecision, TRACEPARENT, single,
};

/// Flags of `traceparent` that are known: sampled, and that the id was drawn at random.
const KNOWN_FLAGS: u8 = 0b11;

/// Writes into every format in which the message carries this trace, or one that is yet to
/// begin, that `onward` sends it on. Where it carries none, into the formats `inject`.
pub fn pass_on(map: &mut HeaderMap, onward: Onward, inject: &[Format]) {
    let mut written = false;
    for format in Format::ALL {
        if let Some(came) = of(format, map).filter(|came| is_same(came, onward)) {
            write(map, format, onward, Some(&came));
            written = true;
        }
    }
    if !written {
        begin(map, onward, inject);
    }
}

/// Writes into these formats that a trace begins with `onward`: the message carries none, or
/// none that could be read.
pub fn begin(map: &mut HeaderMap, onward: Onward, inject: &[Format]) {
    for format in inject {
        write(map, *format, onward, None);
    }
}

/// A header that names another trace is left alone: this span is no part of that.
fn is_same(came: &Context, onward: Onward) -> bool {
    let low = |trace: u128| trace & u128::from(u64::MAX);
    came.ids
        .is_none_or(|ids| low(ids.trace) == low(onward.trace))
}

fn write(map: &mut HeaderMap, format: Format, onward: Onward, came: Option<&Context>) {
    match format {
        Format::TraceContext => {
            // Unknown flags are not this span's to repeat.
            let came = came.and_then(|_| flags(single(map, &TRACEPARENT)?.as_bytes()));
            traceparent(map, onward, came.unwrap_or(0) & KNOWN_FLAGS & !1);
        }
        Format::B3 => b3(map, onward, came),
        Format::B3Multi => b3_multi(map, onward, came),
    }
}

fn traceparent(map: &mut HeaderMap, onward: Onward, kept: u8) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    print(&mut text[3..35], onward.trace);
    print(&mut text[36..52], onward.span.into());
    print(&mut text[53..], (kept | u8::from(onward.sampled)).into());
    set(map, &TRACEPARENT, &text);
}

/// Of a valid header.
fn flags(text: &[u8]) -> Option<u8> {
    let flags = std::str::from_utf8(text.get(53..55)?).ok()?;
    u8::from_str_radix(flags, 16).ok()
}

fn b3(map: &mut HeaderMap, onward: Onward, came: Option<&Context>) {
    let header = single(map, &B3).map_or(&[][..], HeaderValue::as_bytes);
    let mut parts = header.split(|byte| *byte == b'-');
    let mut text = [0; 32 + 1 + 16 + 1 + 1 + 1 + 16];
    let ids = came.and_then(|came| came.ids);
    // An id of 64 bits stays one.
    let length = match ids {
        Some(_) => parts.next().map_or(32, <[u8]>::len),
        None => 32,
    };
    let debug = match ids {
        Some(_) => parts.nth(1) == Some(b"d"),
        None => header == b"d",
    };
    print(&mut text[..length], onward.trace);
    text[length] = b'-';
    print(&mut text[length + 1..length + 17], onward.span.into());
    text[length + 17] = b'-';
    text[length + 18] = match (onward.sampled, debug) {
        (true, true) => b'd',
        (true, false) => b'1',
        (false, _) => b'0',
    };
    let mut end = length + 19;
    if let Some(ids) = ids.filter(|ids| ids.parent != onward.span) {
        text[end] = b'-';
        print(&mut text[end + 1..end + 17], ids.parent.into());
        end += 17;
    }
    set(map, &B3, &text[..end]);
}

fn b3_multi(map: &mut HeaderMap, onward: Onward, came: Option<&Context>) {
    let ids = came.and_then(|came| came.ids);
    let length = match ids {
        Some(_) => single(map, &B3_TRACE).map_or(32, HeaderValue::len),
        None => 32,
    };
    let (mut trace, mut span) = ([0; 32], [0; 16]);
    print(&mut trace[..length], onward.trace);
    print(&mut span, onward.span.into());
    if let Some(ids) = ids.filter(|ids| ids.parent != onward.span) {
        let mut parent = [0; 16];
        print(&mut parent, ids.parent.into());
        set(map, &B3_PARENT, &parent);
    }
    set(map, &B3_TRACE, &trace[..length]);
    set(map, &B3_SPAN, &span);
    // Debug decides too, and so does a decision from before.
    let decided = came.is_some_and(|came| came.sampling != SamplingDecision::Open);
    if !decided || (!map.contains_key(&B3_SAMPLED) && !map.contains_key(&B3_FLAGS)) {
        set(map, &B3_SAMPLED, if onward.sampled { b"1" } else { b"0" });
    }
}

/// The lowest digits of a number, as many as there is room for.
fn print(room: &mut [u8], mut value: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in room.iter_mut().rev() {
        *digit = DIGITS[(value & 0xf) as usize];
        value >>= 4;
    }
}

/// The value differs in each message, so no table of a connection of HTTP/2 shall keep it:
/// what it pushed out there would have to be sent again.
fn set(map: &mut HeaderMap, name: &http::HeaderName, text: &[u8]) {
    if let Ok(mut value) = HeaderValue::from_bytes(text) {
        value.set_sensitive(true);
        map.insert(name, value);
    }
}
