//! Looks at frames before `h2` reads them: leaves out DATA frames that hold nothing and
//! end nothing, counts small ones for [`super::inbox`], and ends a client's connection
//! for its trailers.
//!
//! Some clients and servers send one between two parts of a body, or before its end,
//! and mean nothing by it. `h2` takes a hundred of them for an attack, over the whole
//! life of a connection, and then ends it with every stream on it. So they are left
//! out before `h2` sees them, as long as they come beside frames that say something;
//! a flood of them is still the attack that it is.
//!
//! A client's trailers with more fields than a head may have end the connection here
//! ([`FieldCount`]): a head is refused with a reason once `h2` has handed it over, but
//! trailers it keeps.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::field_count::FieldCount;
use super::inbox::{SMALL, SmallFrames};
use crate::http::limits::HEADER_COUNT;
use crate::net::forward::{forward_shutdown, forward_write};

/// What a client sends before its first frame.
const PREFACE: usize = 24;
/// Head of a frame: length, type, flags, stream.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// Bytes of a HEADERS frame before its block: where padding has a length, and which
/// other stream comes first.
const PAD_LENGTH: usize = 1;
const PRIORITY_FIELDS: usize = 5;
/// Empty frames that may come in a row; each frame with content allows another one.
const ALLOWED: u32 = 1000;

/// A connection whose frames are looked at before `h2` reads them.
#[derive(Debug)]
pub(super) struct FrameFilter<I> {
    io: I,
    /// Bytes that belong to what was begun and are no head of a frame.
    content: usize,
    /// A head that has not come whole.
    head: [u8; HEAD],
    got: usize,
    /// Of a whole head, what the reader has had no room for.
    unread: usize,
    allowed: u32,
    small: SmallFrames,
    /// The newest stream that a client began; `None` where a server is read.
    newest: Option<u32>,
    /// Of trailers that are coming: bytes that are no block, and the fields. Padding
    /// behind the block counts as block, which `h2` would not read: at worst a field a byte.
    trailers: Option<(usize, FieldCount)>,
}

impl<I> FrameFilter<I> {
    /// Of a client, which begins with the preface.
    pub(super) const fn of_client(io: I, small: SmallFrames) -> Self {
        Self {
            io,
            content: PREFACE,
            head: [0; HEAD],
            got: 0,
            unread: 0,
            allowed: ALLOWED,
            small,
            newest: Some(0),
            trailers: None,
        }
    }

    pub(super) const fn of_server(io: I, small: SmallFrames) -> Self {
        let mut this = Self::of_client(io, small);
        this.content = 0;
        this.newest = None;
        this
    }

    /// Whether a frame with this head is passed on; its content follows.
    fn passes(&mut self, head: [u8; HEAD]) -> bool {
        let [a, b, c, kind, flags, d, e, f, g] = head;
        self.content = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == HEADERS {
            self.trailers_of(flags, u32::from_be_bytes([d & 0x7f, e, f, g]));
        } else if kind != CONTINUATION {
            self.trailers = None;
        }
        match kind {
            DATA if self.content == 0 && flags & END_STREAM == 0 => {
                let left = self.allowed.checked_sub(1);
                self.allowed = left.unwrap_or(0);
                left.is_none()
            }
            DATA | HEADERS => {
                if kind == DATA && self.content < SMALL {
                    self.small.came();
                }
                self.allowed = (self.allowed + 1).min(ALLOWED);
                true
            }
            _ => true,
        }
    }

    /// A HEADERS frame begins: it holds trailers where its stream is no new one.
    fn trailers_of(&mut self, flags: u8, stream: u32) {
        let Some(newest) = self.newest else { return };
        if stream > newest {
            (self.newest, self.trailers) = (Some(stream), None);
            return;
        }
        let mut before = 0;
        if flags & PADDED != 0 {
            before += PAD_LENGTH;
        }
        if flags & PRIORITY != 0 {
            before += PRIORITY_FIELDS;
        }
        self.trailers = Some((before, FieldCount::default()));
    }

    /// Counts the fields where `content` is of trailers.
    fn look(&mut self, content: &[u8]) -> io::Result<()> {
        let Some((before, count)) = &mut self.trailers else {
            return Ok(());
        };
        let skipped = (*before).min(content.len());
        *before -= skipped;
        count.feed(&content[skipped..]);
        if count.fields() > HEADER_COUNT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "trailers of more than 100 fields",
            ));
        }
        Ok(())
    }

    /// Leaves out what is empty, and keeps a head that has not come whole. Gives how
    /// many bytes are left, at the beginning.
    fn filter(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let content = self.content.min(bytes.len() - at);
            if content > 0 {
                self.look(&bytes[at..at + content])?;
                bytes.copy_within(at..at + content, kept);
                self.content -= content;
                (at, kept) = (at + content, kept + content);
                continue;
            }
            let Some(head) = bytes.get(at..at + HEAD) else {
                let begun = &bytes[at..];
                self.head[..begun.len()].copy_from_slice(begun);
                self.got = begun.len();
                break;
            };
            let mut whole = [0; HEAD];
            whole.copy_from_slice(head);
            if self.passes(whole) {
                bytes.copy_within(at..at + HEAD, kept);
                kept += HEAD;
            }
            at += HEAD;
        }
        Ok(kept)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for FrameFilter<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.small.are_too_many() {
            // The connection's task looks at them first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if this.unread > 0 {
                let now = this.unread.min(out.remaining());
                out.put_slice(&this.head[HEAD - this.unread..][..now]);
                this.unread -= now;
                return Poll::Ready(Ok(()));
            }
            if this.got > 0 {
                let mut rest = [0; HEAD];
                let mut rest = ReadBuf::new(&mut rest[this.got..]);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut rest))?;
                let rest = rest.filled();
                if rest.is_empty() {
                    // Ends within a head: the reader gets what there is of it.
                    this.head.copy_within(..this.got, HEAD - this.got);
                    this.unread = std::mem::take(&mut this.got);
                    continue;
                }
                this.head[this.got..][..rest.len()].copy_from_slice(rest);
                this.got += rest.len();
                if this.got == HEAD {
                    this.got = 0;
                    if this.passes(this.head) {
                        this.unread = HEAD;
                    }
                }
                continue;
            }
            let before = out.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
            let bytes = &mut out.filled_mut()[before..];
            if bytes.len() <= this.content {
                // In the middle of a frame, as most reads of a fast stream are; or the
                // end of the connection.
                this.content -= bytes.len();
                this.look(bytes)?;
                return Poll::Ready(Ok(()));
            }
            let kept = this.filter(bytes)?;
            out.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FrameFilter<I> {
    forward_write!(io);
    forward_shutdown!(io);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{ALLOWED, FrameFilter, PREFACE, SmallFrames};

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = (content.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(content);
        bytes
    }

    /// What is read when `sent` comes in pieces of `piece` bytes, by reads of `room`.
    async fn read(sent: &[u8], piece: usize, room: usize) -> Vec<u8> {
        let (mut near, far) = duplex(1 << 20);
        let mut far = FrameFilter::of_client(far, SmallFrames::default());
        let sent = sent.to_vec();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(piece) {
                near.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
        loop {
            let got = far.read(&mut buffer).await.unwrap();
            if got == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..got]);
        }
        sending.await.unwrap();
        all
    }

    #[tokio::test]
    async fn only_empty_frames_that_end_nothing_are_left_out_however_they_are_cut() {
        let preface = vec![b'p'; PREFACE];
        let kept = [
            preface.clone(),
            frame(4, 0, b""),
            frame(1, 4, b"head"),
            frame(0, 0, b"abc"),
            frame(0, 0, &[7; 300]),
            frame(0, 1, b""),
            frame(1, 5, b"x"),
        ];
        let empty = frame(0, 0, b"");
        let mut sent = Vec::new();
        for (at, part) in kept.iter().enumerate() {
            sent.extend(part);
            for _ in 0..at {
                sent.extend(&empty);
            }
        }
        let kept = kept.concat();
        for piece in [1, 2, 8, 9, 10, 33, 5000] {
            for room in [1, 5, 9, 64, 5000] {
                assert_eq!(read(&sent, piece, room).await, kept, "{piece} {room}");
            }
        }
    }

    #[tokio::test]
    async fn trailers_of_more_fields_than_a_head_may_have_end_the_connection() {
        let head = frame(1, 4, &[0x82; 150]);
        let trailers = |fields: usize, cut: usize| {
            // Padded, with a priority, and in two frames.
            let block = vec![0x82; fields];
            let before = [&[0, 0, 0, 0, 0, 0][..], &block[..cut]].concat();
            [frame(1, 0x28, &before), frame(9, 4, &block[cut..])].concat()
        };
        let preface = [b'p'; PREFACE];
        for (fields, passes) in [(100, true), (101, false)] {
            for piece in [1, 9, 60, 5000] {
                let sent = [&preface[..], &head, &trailers(fields, 60)].concat();
                let (mut near, far) = duplex(1 << 20);
                let mut far = FrameFilter::of_client(far, SmallFrames::default());
                let mut all = Vec::new();
                let mut read = Ok(0);
                for piece in sent.chunks(piece) {
                    near.write_all(piece).await.unwrap();
                    let mut buffer = vec![0; 5000];
                    let before = all.len();
                    while read.is_ok() && all.len() - before < piece.len() {
                        let reading = far.read(&mut buffer);
                        // A head that has not come whole is kept.
                        let patience = std::time::Duration::from_millis(5);
                        let Ok(got) = tokio::time::timeout(patience, reading).await else {
                            break;
                        };
                        all.extend_from_slice(&buffer[..*got.as_ref().unwrap_or(&0)]);
                        read = got;
                    }
                }
                assert_eq!(read.is_ok(), passes, "{fields} {piece}");
                assert!(!passes || all == sent, "{fields} {piece}");
            }
        }
    }

    #[tokio::test]
    async fn a_flood_of_empty_frames_is_passed_on() {
        let mut sent = vec![b'p'; PREFACE];
        let flood = frame(0, 0, b"").repeat(3 * ALLOWED as usize);
        sent.extend(&flood);
        let got = read(&sent, 5000, 5000).await;
        assert_eq!(got.len(), PREFACE + flood.len() / 3 * 2);
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_a_head_ends_so_for_the_reader() {
        let mut sent = vec![b'p'; PREFACE];
        sent.extend([0, 0, 9, 0]);
        assert_eq!(read(&sent, 3, 64).await, sent);
    }
}
