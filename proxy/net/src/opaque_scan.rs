//! Scans relayed opaque bytes for lines that a server would read as a header of the mesh.
//!
//! Servers take more for a request with headers than what ends in HTTP and a version.
//! llhttp, which Node, uvicorn and aiohttp read with, knows `RTSP/` and `ICE/`. It, PHP's
//! built-in server and Python's `http.server` also read headers after a line without any version,
//! such as `GET x`. memcached, Redis and RTSP clients really send such lines, so they have to
//! pass. What no honest client of theirs sends is a line that begins with a header of the mesh: a
//! connection with one ends before its value.
//!
//! The whole connection is scanned, because a server that took its first line for a request takes
//! others after it. A connection that cannot be a request by its first line is not scanned, so that
//! binary protocols carry whatever they like.
//!
//! Claims: attack-62, attack-64

use crate::sniff::{FirstLine, Line, is_blank, is_token};

/// How headers of the mesh begin. A mark follows: `-`, or another one that servers read as it.
const OURS: &[u8] = b"weft";

/// What must not pass unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanFinding {
    /// A first line of HTTP, which came too slowly to be read as one.
    Http,
    /// A header of the mesh after what may be a request.
    OwnHeader,
}

impl ScanFinding {
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Http => "a first line of HTTP that came too slowly to be read as one",
            Self::OwnHeader => "a header of the mesh in text that was not read as HTTP",
        }
    }
}

/// Takes the bytes of one direction of a connection in whatever chunks they come.
#[derive(Debug)]
pub struct OpaqueScan {
    first: FirstLine,
    /// Until the first line has ended.
    begins: bool,
    /// `None` where a server can take nothing for a request any more.
    lines: Option<Lines>,
}

impl OpaqueScan {
    /// `server_spoke`: no server of HTTP speaks first.
    #[must_use]
    pub fn new(server_spoke: bool) -> Self {
        Self {
            first: FirstLine::default(),
            begins: true,
            lines: (!server_spoke).then(Lines::default),
        }
    }

    /// Takes the next bytes. After something was found, none may pass.
    pub fn note(&mut self, bytes: &[u8]) -> Option<ScanFinding> {
        if self.begins {
            match self.first.note(bytes) {
                Line::Blank | Line::Incomplete => {}
                Line::Other => self.begins = false,
                Line::Http => return Some(ScanFinding::Http),
            }
        }
        let lines = self.lines.as_mut()?;
        lines.note(bytes);
        if self.first.may_be_request() {
            return lines.ours.then_some(ScanFinding::OwnHeader);
        }
        if !self.begins {
            self.lines = None;
        }
        None
    }
}

/// Looks at how lines begin. Either of CR and LF ends one: some parsers of headers
/// take a lone CR for an end.
#[derive(Debug, Default)]
struct Lines {
    at: At,
    /// A line began as a header of ours.
    ours: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// So many bytes of [`OURS`] have come, and nothing before them.
    Begin(usize),
    /// In the name of a header of ours.
    Name,
    Rest,
}

impl Default for At {
    fn default() -> Self {
        Self::Begin(0)
    }
}

impl Lines {
    fn note(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while !self.ours
            && let Some((byte, rest)) = bytes.split_first()
        {
            bytes = rest;
            self.at = match self.at {
                _ if ends_line(*byte) => At::Begin(0),
                At::Begin(came) if begins_ours(came, *byte) => {
                    if came == OURS.len() {
                        At::Name
                    } else {
                        At::Begin(came + 1)
                    }
                }
                At::Name if *byte == b':' => {
                    self.ours = true;
                    At::Rest
                }
                At::Name if is_token(*byte) || is_blank(*byte) => At::Name,
                At::Begin(_) | At::Name | At::Rest => {
                    let end = rest.iter().position(|byte| ends_line(*byte));
                    bytes = end.map_or(&[][..], |end| &rest[end..]);
                    At::Rest
                }
            };
        }
    }
}

const fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Servers that make `_` of what is neither letter nor digit do so to any such byte.
fn begins_ours(came: usize, byte: u8) -> bool {
    OURS.get(came).map_or_else(
        || byte.is_ascii_punctuation() && byte != b':',
        |next| next.eq_ignore_ascii_case(&byte),
    )
}

#[cfg(test)]
mod tests {
    use super::{OpaqueScan, ScanFinding};

    /// What is found in whole, and byte by byte.
    fn found(bytes: &[u8], server_spoke: bool) -> Option<ScanFinding> {
        let whole = OpaqueScan::new(server_spoke).note(bytes);
        let mut unread = OpaqueScan::new(server_spoke);
        let chunks = bytes.iter().find_map(|byte| unread.note(&[*byte]));
        assert_eq!(whole, chunks, "{:?}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn mesh_header_is_found_after_anything_request_like() {
        for first in [
            &b"GET rtsp://a/x RTSP/1.0\r\n"[..],
            b"\r\nGET /x RTSP/1.0\r\n",
            b"\nSOURCE /x ICE/1.0\n",
            b"\r\nGET /x\r\n",
            b"GET x\n",
            b"get\tk\r\n",
            b"M-SEARCH x word/1.0\r\n",
            b"\xff x WORD / 1.0\r\n",
            b"GET x\r\nHost: a\r\n",
            b"OPTIONS rtsp://a RTSP/1.0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n",
            b"GET x\r\nHost: a\r",
        ] {
            for header in [
                "weft-client-id: spiffe://x",
                "WEFT-Client-ID:spiffe://x",
                "weft_client_id: spiffe://x",
                "weft.client.id: spiffe://x",
                "Weft~client-id: spiffe://x",
                "weft'client!id: spiffe://x",
                "weft/client-id: spiffe://x",
                "weft-client-id \t: spiffe://x",
                "weft-new:",
            ] {
                let bytes = [first, header.as_bytes(), b"\r\n\r\n"].concat();
                let case = String::from_utf8_lossy(&bytes);
                assert_eq!(
                    found(&bytes, false),
                    Some(ScanFinding::OwnHeader),
                    "{case:?}"
                );
                // The name and all before it may have passed, nothing of the value.
                let colon = bytes.len() - 4 - header.len() + header.find(':').unwrap();
                assert_eq!(found(&bytes[..colon], false), None, "{case:?}");
            }
            assert_eq!(found(first, false), None);
        }
    }

    #[test]
    fn leniently_parsed_line_does_not_hide_second_request() {
        for first in [
            &b"@ /a HTTP/+1.1\r\n"[..],
            b"GET: /a HTTP/-0.9\r\n",
            b"<GET> /a HTTP/00000000000000000000000000001.1\r\n",
        ] {
            let second = b"host: a\r\n\r\nGET /b HTTP/1.1\r\nweft-client-id: x\r\n\r\n";
            let bytes = [first, second].concat();
            assert_eq!(found(&bytes, false), Some(ScanFinding::Http));
        }
    }

    #[test]
    fn other_text_and_binary_protocols_pass_whatever_they_carry() {
        for bytes in [
            &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$17\r\nweft-client-id: x\r\n"[..],
            b"\0\0\0\x24 x\nweft-client-id: x\n",
            b"{\"a\": 1}\nweft-client-id: x\n",
            b"CONNECT\nweft-client-id:x\n\n\0",
            b"get k\r\nx weft-client-id: x\r\n",
            b"get k\r\nweft: x\r\nweftage: x\r\nweft-\r\nwef t-x:\r\nweft9: x\r\nwef.t: x\r\n",
            b"get k\r\nweft and warp: x\r\nweft : x\r\nweft\xe9: x\r\nweft.\r\n",
            b"get k\r\nweft-client-id, x: y\r\n",
            b"GET x RTSP/1.0\r\nX: 1\r\n weft-client-id: folded\r\n",
        ] {
            let case = String::from_utf8_lossy(bytes);
            assert_eq!(found(bytes, false), None, "{case:?}");
        }
    }

    #[test]
    fn server_first_connection_is_scanned_for_one_line() {
        let mail = b"EHLO a\r\nDATA\r\nweft-client-id: x\r\n";
        assert_eq!(found(mail, true), None);
        assert_eq!(found(mail, false), Some(ScanFinding::OwnHeader));
        assert_eq!(found(b"GET / HTTP/1.1\r\n", true), Some(ScanFinding::Http));
    }
}
