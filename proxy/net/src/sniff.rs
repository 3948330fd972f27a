//! Detects the protocol of a connection by its first bytes.
//!
//! On a port without a declared protocol, a client that sends nothing may be waiting for the
//! server to send first, so silence is no reason to wait long: the caller meanwhile opens the way
//! to the server, and the side that sends first decides. On a port that is declared to carry HTTP
//! the bytes show which version it is, or that it is none.
//!
//! HTTP must not pass as something else, because what its headers carry is taken from it only
//! where it is read. Servers read more as HTTP than a strict
//! parser does: blank lines before the first one, tabs for blanks, any method, any
//! case. So the first line counts as HTTP when it ends as HTTP's do, and where it
//! comes too slowly to wait for, [`FirstLine`] watches it as it passes. What is read
//! as a request although it ends otherwise is for [`crate::opaque_scan`].

use std::time::Duration;

use policy::protocol::Protocol;

/// How long the first bytes may take on a port that has no declaration.
pub const DETECT_WITHIN: Duration = Duration::from_secs(1);
/// Silence after which the server may be the one that speaks first.
pub const SILENCE: Duration = Duration::from_millis(50);
/// Longest method that is recognised before the end of its line, with the blank
/// after it.
const ENOUGH: usize = 24;
/// Longest first line that is watched. Go's servers take a head of somewhat more than
/// 1 MiB, which is the most of those that are known.
const LINE_LIMIT: usize = 2 * 1024 * 1024;
/// Bytes kept of the end of a first line: `HTTP/` and a version, with room.
const LINE_END: usize = 24;
/// Bytes of nothing but blank lines that are waited through.
const BLANK_LIMIT: usize = 1024;
/// Where nothing is delivered before the protocol is known, what shows it comes within this time
/// after the first byte.
pub const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of settings in the first frame of a server: the largest frame for a peer that announced
/// no other.
const LARGEST_GREETING: u32 = 16 * 1024;
/// Methods of HTTP that a client may send in chunks.
const METHODS: [&[u8]; 8] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE",
];
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes show so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    Http1,
    Http2,
    Opaque,
    /// Too few bytes to decide.
    Unsure,
}

impl Sniffed {
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Http1 => Protocol::Http1,
            Self::Http2 => Protocol::Http2,
            Self::Opaque | Self::Unsure => Protocol::Opaque,
        }
    }
}

/// Evaluates the first bytes of a connection.
///
/// HTTP/1 is a token, a blank and a target that starts as targets do. CONNECT
/// counts as opaque: it opens a tunnel through a forward proxy, whose bytes
/// are none of ours.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Sniffed {
    if bytes.is_empty() {
        return Sniffed::Unsure;
    }
    if HTTP2_PREFACE.starts_with(bytes) && bytes.len() < 14 && bytes.len() < HTTP2_PREFACE.len() {
        return Sniffed::Unsure;
    }
    if bytes.starts_with(&HTTP2_PREFACE[..14]) {
        return Sniffed::Http2;
    }
    let Some(blank) = bytes.iter().position(|byte| *byte == b' ') else {
        let token = bytes.iter().all(u8::is_ascii_uppercase) && bytes.len() < ENOUGH;
        return if token {
            Sniffed::Unsure
        } else {
            Sniffed::Opaque
        };
    };
    let method = &bytes[..blank];
    let plausible = !method.is_empty()
        && method
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
    if !plausible || method == b"CONNECT" {
        return Sniffed::Opaque;
    }
    match bytes.get(blank + 1) {
        None => Sniffed::Unsure,
        Some(b'/' | b'*' | b'h' | b'H') => Sniffed::Http1,
        Some(_) => Sniffed::Opaque,
    }
}

/// The same for the side of the server, which also takes for HTTP what only
/// lenient servers do: a first line, after blank ones, that ends in `HTTP/` and a
/// version. The parser serves it or refuses it; as opaque bytes it does not pass.
#[must_use]
pub fn sniff_leniently(bytes: &[u8]) -> Sniffed {
    let sniffed = sniff(bytes);
    if matches!(sniffed, Sniffed::Http1 | Sniffed::Http2) {
        return sniffed;
    }
    match FirstLine::default().note(bytes) {
        Line::Http => Sniffed::Http1,
        Line::Blank if bytes.len() < BLANK_LIMIT => Sniffed::Unsure,
        _ if is_old_request(bytes) => Sniffed::Http1,
        Line::Incomplete => sniffed,
        Line::Blank | Line::Other => Sniffed::Opaque,
    }
}

/// Whether what came too slowly to be sure of is the beginning of a request: a word with
/// a blank after it, or two letters and more of a method that HTTP has. Any other word in
/// capitals is more likely a whole message of some other protocol, whose client waits for
/// the answer. [`FirstLine`] watches how its line goes on.
#[must_use]
pub(crate) fn begins_request(bytes: &[u8]) -> bool {
    let of_method = |method: &&[u8]| bytes.len() > 1 && method.starts_with(bytes);
    sniff(bytes) == Sniffed::Unsure && (bytes.contains(&b' ') || METHODS.iter().any(of_method))
}

/// A request without a version, which some servers still read headers after: a
/// method in capitals, any blanks, and a target that starts as targets do.
fn is_old_request(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| is_blank(*byte));
    let (method, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    let target = rest.iter().find(|byte| !is_blank(**byte));
    !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && matches!(target, Some(b'/' | b'*'))
}

/// What a first line is, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Blank lines and blanks only.
    Blank,
    /// Not at its end.
    Incomplete,
    /// At its end, which is HTTP's.
    Http,
    /// At its end, or too long for a first line: not HTTP.
    Other,
}

/// Reads the first line of a stream that is not blank, in whatever chunks it comes.
#[derive(Debug, Default)]
pub struct FirstLine {
    /// The last bytes of the line, runs of blanks as one.
    end: Vec<u8>,
    /// Blanks came after `end`.
    blanks: bool,
    length: usize,
    over: Option<Line>,
    /// A byte of the first word cannot stand in a method.
    odd: bool,
    request: bool,
}

impl FirstLine {
    /// True when some server may read the line as a request with headers after it: it
    /// has a method and something more, or ends in a name and a version of its own.
    #[must_use]
    pub(crate) const fn may_be_request(&self) -> bool {
        self.request
    }

    /// Takes the next bytes. A result for the line stays.
    pub fn note(&mut self, bytes: &[u8]) -> Line {
        for byte in bytes {
            if let Some(over) = self.over {
                return over;
            }
            self.next(*byte);
        }
        match self.over {
            Some(over) => over,
            None if self.end.is_empty() => Line::Blank,
            None => Line::Incomplete,
        }
    }

    fn next(&mut self, byte: u8) {
        if byte == b'\n' {
            if self.end.is_empty() {
                self.blanks = false;
            } else {
                let name = versioned(&self.end);
                self.request |= name.is_some();
                let http = name.is_some_and(|name| name.eq_ignore_ascii_case(b"http"));
                self.over = Some(if http { Line::Http } else { Line::Other });
            }
            return;
        }
        self.length += 1;
        if self.length > LINE_LIMIT {
            self.over = Some(Line::Other);
        } else if is_blank(byte) {
            self.blanks = true;
        } else {
            if std::mem::take(&mut self.blanks) && !self.end.is_empty() {
                // Further parts decide nothing: what was odd or a request stays so.
                self.request |= !self.odd;
                self.odd = true;
                self.push(b' ');
            }
            self.odd |= !is_token(byte);
            self.push(byte);
        }
    }

    fn push(&mut self, byte: u8) {
        if self.end.len() == LINE_END {
            // A version may have thousands of zeros in front; its beginning decides.
            if byte != b' ' && versioned(&self.end).is_some() {
                return;
            }
            self.end.remove(0);
        }
        self.end.push(byte);
    }
}

/// What servers take for a blank in a first line: some split it at everything that
/// is white space in Latin-1.
#[must_use]
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | 0x0b | 0x0c | b'\r' | 0x1c..=0x1f | 0x85 | 0xa0
    )
}

/// What the names of methods, header fields and protocols consist of.
#[must_use]
pub const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// The name at the end of a line that ends in a blank, letters, a slash and what begins
/// with anything but a letter: the name and version of a protocol. Servers differ in what
/// is a number to them, those in Python take `+1.1` for one, and for none is a letter.
fn versioned(line: &[u8]) -> Option<&[u8]> {
    let slash = line.iter().rposition(|byte| *byte == b'/')?;
    let (before, version) = (line[..slash].trim_ascii_end(), &line[slash + 1..]);
    let version = version.trim_ascii_start();
    let letters = before
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let (rest, name) = before.split_at(before.len() - letters);
    let ends = !name.is_empty()
        && rest.last().is_none_or(|byte| *byte == b' ')
        && version
            .first()
            .is_some_and(|byte| !byte.is_ascii_alphabetic())
        && !version.contains(&b' ');
    ends.then_some(name)
}

/// Evaluates the first bytes of a server that sends first: HTTP/2 if they are the head of
/// SETTINGS, with which its servers begin and need not wait for the client's preface.
pub(crate) fn sniff_greeting(bytes: &[u8]) -> Sniffed {
    match *bytes {
        [a, b, c, 4, 0, 0, 0, 0, 0, ..] => {
            let size = u32::from_be_bytes([0, a, b, c]);
            if size.is_multiple_of(6) && size <= LARGEST_GREETING {
                Sniffed::Http2
            } else {
                Sniffed::Opaque
            }
        }
        [] | [0] | [0, _] | [0, _, _] => Sniffed::Unsure,
        [0, _, _, 4, ref rest @ ..] if rest.len() < 5 && rest.iter().all(|byte| *byte == 0) => {
            Sniffed::Unsure
        }
        _ => Sniffed::Opaque,
    }
}

/// The same for ports that HTTP rules protect, where letting HTTP through as
/// opaque bytes would go around the rules: whatever a lenient server might
/// still read as HTTP counts as HTTP, and the strict parser refuses the rest.
#[must_use]
pub fn sniff_strictly(bytes: &[u8]) -> Sniffed {
    match sniff(bytes) {
        Sniffed::Opaque | Sniffed::Unsure
            if bytes
                .first()
                .is_some_and(|byte| byte.is_ascii_alphabetic() || byte.is_ascii_whitespace()) =>
        {
            if HTTP2_PREFACE.starts_with(bytes) {
                Sniffed::Unsure
            } else {
                Sniffed::Http1
            }
        }
        sniffed => sniffed,
    }
}

/// The same for ports that are declared to carry HTTP. Opaque is what no request can begin
/// with, such as TLS or what PostgreSQL and Redis send. From a method and a blank on it is for
/// the strict parser, which answers what it refuses.
#[must_use]
pub fn sniff_declared(bytes: &[u8]) -> Sniffed {
    let sniffed = sniff(bytes);
    if matches!(sniffed, Sniffed::Http1 | Sniffed::Http2) || HTTP2_PREFACE.starts_with(bytes) {
        return sniffed;
    }
    let blank_lines = bytes.iter().take_while(|byte| byte.is_ascii_whitespace());
    let word = &bytes[blank_lines.count()..];
    match word.iter().position(|byte| !is_token(*byte)) {
        None if bytes.len() < BLANK_LIMIT => Sniffed::Unsure,
        None => Sniffed::Http1,
        Some(end @ 1..) if matches!(word[end], b' ' | b'\t') => match sniffed {
            Sniffed::Unsure => Sniffed::Unsure,
            Sniffed::Http1 | Sniffed::Http2 | Sniffed::Opaque => Sniffed::Http1,
        },
        Some(_) => Sniffed::Opaque,
    }
}

/// Whether a connection begins with a TLS record in which a ClientHello begins. A TLS client
/// sends so much of it at once; one that sends less counts as another protocol.
#[must_use]
pub(crate) const fn begins_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 0x03, 0..=4, _, _, 0x01, ..])
}

#[cfg(test)]
mod tests;
