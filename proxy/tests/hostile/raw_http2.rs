//! An HTTP/2 client that writes any frame, valid or not.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The first event of a stream on an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    Closed,
    Nothing,
}

impl Outcome {
    /// A refusal: no application can have sent this.
    pub(crate) const fn is_refusal(self) -> bool {
        match self {
            Self::Status(status) => status >= 400 && status < 500,
            Self::Reset(_) | Self::GoAway(_) | Self::Closed => true,
            Self::Nothing => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub(crate) struct RawHttp2 {
    io: Box<dyn Io>,
    bytes: Vec<u8>,
    outcomes: HashMap<u32, Outcome>,
    /// Of the whole connection.
    pub(crate) over: Option<Outcome>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Literal fields that enter no table: exactly the bytes given.
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for part in [name, value] {
            length(&mut bytes, 0, 7, part.len());
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

/// An HPACK integer behind the `bits` low bits of its first byte.
pub(crate) fn length(bytes: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        bytes.push(first | value as u8);
        return;
    }
    bytes.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

pub(crate) fn get(path: &str) -> [(&[u8], &[u8]); 4] {
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"s"),
        (b":path", path.as_bytes()),
    ]
}

impl RawHttp2 {
    pub(crate) async fn new(io: impl Io + 'static) -> Self {
        let mut raw = Self {
            io: Box::new(io),
            bytes: Vec::new(),
            outcomes: HashMap::new(),
            over: None,
        };
        raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.write(&frame(SETTINGS, 0, 0, &[])).await;
        raw
    }

    /// False once the other side no longer takes bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.io.write_all(bytes).await.is_ok() && self.io.flush().await.is_ok()
    }

    /// Gives up when nothing is taken for `patience`, as by a peer that waits
    /// for us to read.
    pub(crate) async fn write_within(&mut self, bytes: &[u8], patience: Duration) -> bool {
        tokio::time::timeout(patience, self.write(bytes))
            .await
            .unwrap_or(false)
    }

    pub(crate) async fn request(
        &mut self,
        stream: u32,
        end: bool,
        fields: &[(&[u8], &[u8])],
    ) -> bool {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.write(&frame(HEADERS, flags, stream, &block(fields)))
            .await
    }

    /// The next frame, or `None` at the end of the connection or the time.
    pub(crate) async fn read(&mut self, until: Instant) -> Option<Frame> {
        loop {
            if self.bytes.len() >= 9 {
                let head = &self.bytes[..9];
                let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.bytes.len() >= 9 + size {
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    let frame = Frame {
                        kind: head[3],
                        flags: head[4],
                        stream: stream & 0x7fff_ffff,
                        payload: self.bytes[9..9 + size].to_vec(),
                    };
                    self.bytes.drain(..9 + size);
                    self.note(&frame).await;
                    return Some(frame);
                }
            }
            let mut buffer = [0; 16 * 1024];
            match timeout_at(until, self.io.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => {
                    self.over.get_or_insert(Outcome::Closed);
                    return None;
                }
                Ok(Ok(count)) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(_) => return None,
            }
        }
    }

    async fn note(&mut self, got: &Frame) {
        let number = |at: usize| {
            got.payload
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u32::from_be_bytes)
        };
        match got.kind {
            HEADERS => {
                let status = Outcome::Status(status_of(&got.payload));
                self.outcomes.entry(got.stream).or_insert(status);
            }
            RST_STREAM => {
                self.outcomes
                    .entry(got.stream)
                    .or_insert(Outcome::Reset(number(0)));
            }
            GOAWAY => self.over = Some(Outcome::GoAway(number(4))),
            PING if got.flags & ACK == 0 => {
                self.write(&frame(PING, ACK, 0, &got.payload)).await;
            }
            SETTINGS if got.flags & ACK == 0 => {
                self.write(&frame(SETTINGS, ACK, 0, &[])).await;
            }
            _ => {}
        }
    }

    /// What became of a stream, for at most `patience`.
    pub(crate) async fn outcome(&mut self, stream: u32, patience: Duration) -> Outcome {
        let until = Instant::now() + patience;
        loop {
            if let Some(outcome) = self.outcomes.get(&stream).copied().or(self.over) {
                return outcome;
            }
            if self.read(until).await.is_none() {
                return self
                    .outcomes
                    .get(&stream)
                    .copied()
                    .or(self.over)
                    .unwrap_or(Outcome::Nothing);
            }
        }
    }

    /// Statuses and resets of every stream so far.
    pub(crate) fn all(&self) -> impl Iterator<Item = Outcome> {
        self.outcomes.values().copied()
    }

    /// Reads until the connection ends or the time does.
    pub(crate) async fn drain(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.read(until).await.is_some() {}
    }
}

/// Status of a response whose first field it is, as servers write it: from the
/// static table, or as a literal of three digits.
fn status_of(block: &[u8]) -> u16 {
    // A change of the table's size may come first.
    let start = block
        .iter()
        .position(|byte| byte & 0xe0 != 0x20)
        .unwrap_or(0);
    match &block[start..] {
        [known @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(known - 0x88)],
        [0x48 | 0x08 | 0x18, 3, digits @ ..] if digits.len() >= 3 => digits[..3]
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0')),
        [0x48 | 0x08 | 0x18, size, coded @ ..] if size & 0x80 != 0 => {
            huffman_digits(&coded[..usize::from(size & 0x7f)])
        }
        other => panic!("not a status: {other:?}"),
    }
}

fn huffman_digits(coded: &[u8]) -> u16 {
    let bits: Vec<u8> = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let number = |at: usize, count: usize| {
        bits.get(at..at + count).map(|bits| {
            bits.iter()
                .fold(0_u16, |all, bit| all * 2 + u16::from(*bit))
        })
    };
    let (mut at, mut status) = (0, 0);
    while status < 100 {
        let short = number(at, 5).expect("a status has three digits");
        // 0, 1 and 2 have five bits, the other digits six.
        let digit = if short <= 2 {
            at += 5;
            short
        } else {
            let long = number(at, 6).expect("a status has three digits");
            at += 6;
            long - 0x19 + 3
        };
        status = status * 10 + digit;
    }
    status
}
