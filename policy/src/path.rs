//! One spelling for every path, so that a rule judges what the application sees.
//!
//! An application may decode, collapse and resolve a path in its own way. Where
//! rules speak about paths, the proxy brings the path into the form below,
//! judges that form and forwards that form. What different applications are
//! known to read differently, and what has no harmless reading, is refused.
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

use std::borrow::Cow;

/// Bytes of a request target, its query included. Proxies answer longer ones with 414.
pub const MAX_TARGET: usize = 8 * 1024;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("does not begin with a slash")]
    NotAbsolute,
    #[error("holds an incomplete or wrong % escape")]
    BadEscape,
    #[error("holds an escaped slash or backslash")]
    EscapedSlash,
    #[error("holds an escaped NUL")]
    EscapedNul,
    #[error("holds an overlong UTF-8 sequence")]
    Overlong,
    #[error("holds a dot segment with a parameter")]
    DotParameter,
    #[error("holds a character that is no part of a path")]
    BadCharacter,
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
    let decoded = decode(path)?;
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
fn decode(path: &str) -> Result<String, BadPath> {
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
                    b'/' | b'\\' => return Err(BadPath::EscapedSlash),
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
