//! Normalizes paths, so that a rule evaluates the path that the application sees.
//!
//! An application may decode, collapse and resolve a path in its own way. Where rules look at
//! paths, the proxy brings the path into the form below, evaluates that form and forwards that
//! form. What applications are known to read differently, and what has no harmless reading, is
//! refused.
//!
//! Done once, never twice: `%252e` is the text `%2e`, not a dot.
//!
//! | in | out |
//! |---|---|
//! | `%41` and other escapes of `A-Z a-z 0-9 - . _ ~` | the character |
//! | other escapes | kept, hex digits in upper case |
//! | `\` | `/` |
//! | `//` | `/` |
//! | `/./`, `/../` | resolved, never above the root |
//! | `%2F`, `%5C`, `%00`, an overlong UTF-8 escape, a broken escape | refused |
//! | `..;x`, `.;x` (also as `%3B`) | refused: some servers drop the parameter |
//! | `#`, `?`, a control character, a blank | refused: no part of a path |
//!
//! Some APIs mean `%2F` and `//` as they are. A path of which nothing but these can be read in
//! several ways is forwarded with them where that decides nothing: where rules allow each of its
//! readings, or whatever path it is ([`crate::access::requests`]).

use std::borrow::Cow;

/// Bytes of a request target, its query included. Proxies answer longer ones with 414.
pub const MAX_TARGET: usize = 8 * 1024;
/// Ways in which the slashes of one path can be read, at most.
const MOST_READINGS: usize = 8;
/// Bytes of a path that is judged in all of them, so that they take no longer together than the
/// longest path that is judged once.
const MAX_READ: usize = MAX_TARGET / MOST_READINGS;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("does not begin with a slash")]
    NotAbsolute,
    #[error("holds an incomplete or wrong % escape")]
    BadEscape,
    #[error("holds an escaped slash")]
    EscapedSlash,
    /// No rule lets this one pass.
    #[error("holds an escaped slash beside a dot segment, a backslash or a wrong escape")]
    EscapedSlashAndMore,
    #[error("holds an escaped backslash")]
    EscapedBackslash,
    #[error("holds an escaped NUL")]
    EscapedNul,
    #[error("holds an overlong UTF-8 sequence")]
    Overlong,
    #[error("holds a dot segment with a parameter")]
    DotParameter,
    #[error("holds a character that is no part of a path")]
    BadCharacter,
}

impl BadPath {
    /// Why a request is refused, and the way out, as one sentence without its end.
    #[must_use]
    pub fn refusal(self) -> String {
        let way_out = match self {
            Self::EscapedSlash => {
                "give this caller a match without pathRegex, or one that fits the path with %2F \
                 and with /"
            }
            _ => "send it in another spelling, or cover this port by no HTTP rule",
        };
        format!("the path {self}; {way_out}")
    }
}

/// A path as it was sent, with the forms that rules judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathForms {
    /// `None`: the path is its own normal form.
    normal: Result<Option<String>, BadPath>,
    /// `None`: the path is its own normal form, or more than its slashes can be read in several
    /// ways.
    kept: Option<KeptSlashes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeptSlashes {
    /// The normal form but for slashes, which are as they were sent.
    text: String,
    /// See [`readings`].
    readings: Vec<String>,
}

/// In how many ways a path can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathReadings<'a> {
    /// In one, which is its normal form.
    One,
    /// In each of these.
    Several(&'a [String]),
    /// In more than rules can see.
    Unknown,
}

impl PathForms {
    #[must_use]
    pub fn of(sent: &str) -> Self {
        let (normal, kept) = match normalise(sent) {
            Ok(Cow::Borrowed(_)) => (Ok(None), None),
            Ok(Cow::Owned(normal)) => (Ok(Some(normal)), with_slashes(sent)),
            Err(BadPath::EscapedSlash) => match with_slashes(sent) {
                Some(kept) => (Err(BadPath::EscapedSlash), Some(kept)),
                None => (Err(BadPath::EscapedSlashAndMore), None),
            },
            Err(error) => (Err(error), None),
        };
        Self { normal, kept }
    }

    /// The normal form, where it differs from the path that was sent.
    #[must_use]
    pub fn changed(&self) -> Option<&str> {
        self.normal.as_ref().ok()?.as_deref()
    }

    /// The normal form. `sent`: the path that this was made of.
    ///
    /// # Errors
    /// When it has none: rules may see it in one way and applications in another.
    pub fn normal<'a>(&'a self, sent: &'a str) -> Result<&'a str, BadPath> {
        match &self.normal {
            Ok(normal) => Ok(normal.as_deref().unwrap_or(sent)),
            Err(error) => Err(*error),
        }
    }

    /// Why it has no normal form.
    #[must_use]
    pub fn error(&self) -> Option<BadPath> {
        self.normal.as_ref().err().copied()
    }

    /// Whether it may be sent on as it is where rules allow whatever path. Dot segments,
    /// backslashes and what is refused beside `%2F` may not.
    #[must_use]
    pub const fn may_stay(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether its slashes, and nothing else, can be read in several ways.
    #[must_use]
    pub fn has_odd_slashes(&self) -> bool {
        let kept = self.kept.as_ref().map(|kept| &*kept.text);
        kept.is_some() && kept != self.changed()
    }

    /// Whether a parser of whole addresses may find another host in it than the request names.
    #[must_use]
    pub fn may_name_host(&self) -> bool {
        let kept = self.kept.as_ref();
        let behind = kept.and_then(|kept| kept.text.strip_prefix('/'));
        behind.is_some_and(|behind| unescape_slashes(behind).starts_with('/'))
    }

    /// Its normal form but for slashes, where that differs from the path that was `sent`.
    #[must_use]
    pub fn kept(&self, sent: &str) -> Option<&str> {
        let kept = self.kept.as_ref().map(|kept| &*kept.text);
        kept.filter(|kept| *kept != sent)
    }

    /// The path in each way in which its slashes can be read, first as it was sent. None where
    /// there is one way, or more than rules can see.
    #[must_use]
    pub fn readings(&self) -> &[String] {
        match &self.kept {
            Some(kept) => &kept.readings,
            None => &[],
        }
    }

    /// In how many ways it can be read.
    #[must_use]
    pub fn ways(&self) -> PathReadings<'_> {
        match self.readings() {
            [] if self.normal.is_err() || self.has_odd_slashes() => PathReadings::Unknown,
            [] => PathReadings::One,
            readings => PathReadings::Several(readings),
        }
    }
}

/// What is done with `%2F`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EscapedSlashes {
    Refused,
    Kept,
}

/// The normal form but for slashes, unless a dot segment or a backslash could be read in the path,
/// or what is refused beside `%2F`.
fn with_slashes(path: &str) -> Option<KeptSlashes> {
    if !path.starts_with('/') || path.contains('\\') {
        return None;
    }
    let text = decode(path, EscapedSlashes::Kept).ok()?;
    let decoded = unescape_slashes(&text);
    let is_dot = |segment: &str| matches!(segment, "." | "..") || is_dot_with_parameter(segment);
    let has_dots = decoded.split('/').any(is_dot);
    (!has_dots).then(|| KeptSlashes {
        readings: readings(&text),
        text,
    })
}

/// A path in each way in which its slashes can be read, first as they were sent; none where there
/// is one way, or there are more than rules can see, or the path is too long.
///
/// Applications decode `%2F` or keep it, merge all slashes, those at the beginning alone or none,
/// and do so in any order. What begins with two slashes is a host and a path to a parser of whole
/// addresses.
fn readings(text: &str) -> Vec<String> {
    if text.len() > MAX_READ {
        return Vec::new();
    }
    let mut readings = vec![text.replace("%2f", "%2F")];
    let mut next = 0;
    while let Some(path) = readings.get(next) {
        let mut read = vec![merge(path), unescape_slashes(path), merge_first(path)];
        read.extend(behind_host(path));
        next += 1;
        for one in read {
            if !readings.contains(&one) {
                readings.push(one);
            }
        }
        if readings.len() > MOST_READINGS {
            return Vec::new();
        }
    }
    if readings.len() == 1 {
        readings.clear();
    }
    readings
}

fn merge(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

fn merge_first(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// The path of an address without scheme: to parsers that know an empty host, and to those that
/// skip every slash before the host.
fn behind_host(path: &str) -> Vec<String> {
    let Some(address) = path.strip_prefix("//") else {
        return Vec::new();
    };
    let behind = |address: &str| {
        let at = address.find('/');
        at.map_or_else(|| "/".to_owned(), |at| address[at..].to_owned())
    };
    vec![behind(address), behind(address.trim_start_matches('/'))]
}

fn unescape_slashes(path: &str) -> String {
    path.replace("%2F", "/").replace("%2f", "/")
}

/// The normal form of a path without query. Idempotent. `*`, the target of a
/// server-wide OPTIONS, is its own normal form.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with(['/', '\\']) {
        return Err(BadPath::NotAbsolute);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, EscapedSlashes::Refused)?;
    let resolved = resolve(&decoded)?;
    Ok(if resolved == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolved)
    })
}

/// True for most paths: nothing in them could change.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let plain = match byte {
            b'/' | b'.' => before != b'/',
            b'%' | b'\\' | b'#' | b'?' | 0..=b' ' | 0x7f => false,
            _ => true,
        };
        before = byte;
        plain
    })
}

/// Decodes what needs no escape, writes the other escapes in one way, and turns
/// backslashes.
fn decode(path: &str, slashes: EscapedSlashes) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) =
        rest.find(|c: char| matches!(c, '%' | '\\' | '#' | '?' | '\0'..=' ' | '\x7f'))
    {
        let (text, tail) = rest.split_at(at);
        out.push_str(text);
        match tail.as_bytes()[0] {
            b'\\' => {
                out.push('/');
                rest = &tail[1..];
            }
            b'%' => {
                let byte = escape(tail).ok_or(BadPath::BadEscape)?;
                rest = &tail[3..];
                match byte {
                    0 => return Err(BadPath::EscapedNul),
                    b'/' => match slashes {
                        EscapedSlashes::Refused => return Err(BadPath::EscapedSlash),
                        EscapedSlashes::Kept => out.push_str(&tail[..3]),
                    },
                    b'\\' => return Err(BadPath::EscapedBackslash),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        out.push(char::from(byte));
                    }
                    _ if is_overlong(byte, escape(rest)) => return Err(BadPath::Overlong),
                    _ => {
                        out.push('%');
                        out.push_str(&tail[1..3].to_ascii_uppercase());
                    }
                }
            }
            _ => return Err(BadPath::BadCharacter),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The byte that `text` begins with in escaped form.
fn escape(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [b'%', high, low, ..] => {
            let digit = |b: u8| {
                char::from(b)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            Some(digit(*high)? << 4 | digit(*low)?)
        }
        _ => None,
    }
}

/// The start of a UTF-8 sequence that is longer than its character needs: a dot
/// or a slash in disguise for a careless decoder.
fn is_overlong(lead: u8, next: Option<u8>) -> bool {
    matches!(
        (lead, next),
        (0xc0 | 0xc1, Some(0x80..=0xbf)) | (0xe0, Some(0x80..=0x9f)) | (0xf0, Some(0x80..=0x8f))
    )
}

/// Merges slashes and resolves dot segments.
fn resolve(path: &str) -> Result<String, BadPath> {
    let mut kept: Vec<&str> = Vec::new();
    // True when what was read so far ends in a directory: `/a/`, `/a/.`, `/a/..`.
    let mut directory = true;
    for segment in path.split('/') {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ if is_dot_with_parameter(segment) => return Err(BadPath::DotParameter),
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if directory {
        out.push('/');
    }
    Ok(out)
}

fn is_dot_with_parameter(segment: &str) -> bool {
    let after = segment.trim_start_matches('.');
    (1..=2).contains(&(segment.len() - after.len()))
        && (after.starts_with(';') || after.starts_with("%3B"))
}

#[cfg(test)]
mod tests;
