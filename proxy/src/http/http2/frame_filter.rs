//! Filters frames before `h2` reads them: skips DATA frames that hold nothing and end nothing,
//! counts small ones for [`super::inbox`], ends a client's connection for its trailers, and passes
//! on later what a client answers to its server's GOAWAY ([`super::graceful_shutdown`]). Where a
//! server is read it has the frames counted that change how much that one takes
//! ([`super::send_window`]), and what a client does not take of its answers is bounded
//! ([`super::unflushed`]).
//!
//! Some clients and servers send an empty frame between two parts of a body, or before its end,
//! without a meaning. `h2` takes a hundred of them for an attack, over the whole life of a
//! connection, and then ends it with every stream on it. So they are skipped before `h2` sees them,
//! as long as they come beside frames with content; a flood of them is still the attack that it is.
//!
//! Control frames take long for their bytes, so a turn of the connection's task ends after some
//! ([`super::inbox`]), and the connection after very many unsolicited ones ([`super::flood`]).
//!
//! A client's trailers with more fields than a head may have end the connection here
//! ([`FieldCount`]): a head is refused with a reason once `h2` has handed it over, but trailers it
//! keeps.
//!
//! Claims: attack-18, calls-15

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::field_count::FieldCount;
use super::flood::FloodDetector;
use super::frame_heads::{DATA, FrameHeads, HEAD, HEADERS, PREFACE};
use super::graceful_shutdown::{ACK, CONTENT, LateAnswer, PING, SHUTDOWN_ANSWER, ShutdownState};
use super::inbox::{SMALL, SmallFrames};
use super::send_window::{INCREMENT, SendWindow, WINDOW_UPDATE};
use super::unflushed::Unflushed;
use super::until_end::may_have_left;
use crate::http::limits::HEADER_COUNT;
use crate::net::forward::forward_shutdown;

const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// Bytes of a HEADERS frame before its block: where padding has a length, and which
/// other stream comes first.
const PAD_LENGTH: usize = 1;
const PRIORITY_FIELDS: usize = 5;
/// Bytes of a frame that are looked at together, at most.
const LOOKED: usize = HEAD + CONTENT;
/// After a read with more frames that count than this the next ones are small, in bytes.
const DENSE: u32 = 64;
const LITTLE: usize = 2 * 1024;
/// Empty frames that may come in a row; each frame with content allows another one.
const ALLOWED: u32 = 1000;

/// Bytes of a frame that are looked at together where these come first: its head, and of an answer
/// to a PING the content as well, which identifies the PING, and so of a WINDOW_UPDATE of the
/// connection.
const fn looked_at(frame: &[u8]) -> usize {
    match frame {
        [0, 0, length, PING, flags, ..] if *length as usize == CONTENT && *flags & ACK != 0 => {
            LOOKED
        }
        // The first bit of a stream's number has no meaning.
        [0, 0, length, WINDOW_UPDATE, _, 0 | 0x80, 0, 0, 0, ..]
            if *length as usize == INCREMENT =>
        {
            HEAD + INCREMENT
        }
        _ => HEAD,
    }
}

/// How far a block of fields has come: a head, or trailers. `h2` keeps what has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    /// Another frame goes on with it.
    GoesOn,
    /// The frame that is coming ends it.
    Ends,
}

/// A connection whose frames are looked at before `h2` reads them.
#[derive(Debug)]
pub(super) struct FrameFilter<I> {
    io: I,
    /// Bytes of the frame under way that were not looked at with its head.
    content: usize,
    /// What is looked at together and has not come whole.
    head: [u8; LOOKED],
    got: usize,
    /// At the end of `head`: what the reader gets next, and has had no room for.
    unread: usize,
    allowed: u32,
    small: SmallFrames,
    flood: FloodDetector,
    /// Of what is written.
    heads: FrameHeads,
    /// Frames of the last read that count for a turn.
    dense: u32,
    /// The newest stream that a client began; `None` where a server is read.
    newest: Option<u32>,
    /// Of trailers that are coming: bytes that are no block, and the fields. Padding
    /// behind the block counts as block, which `h2` would not read: at worst a field a byte.
    trailers: Option<(usize, FieldCount)>,
    block: Block,
    /// Learns of a client's heads when they begin and when they have come.
    permit: Option<Arc<Permit>>,
    late: LateAnswer,
    /// Of answers to the client that is read.
    unflushed: Unflushed,
    /// Of the server that is read, for what is written to it. On the heap: connections of
    /// clients have none, and are many.
    window: Option<Box<SendWindow>>,
}

impl<I> FrameFilter<I> {
    /// Of a client, which begins with the preface. `permit` sees to slow heads.
    pub(super) fn of_client(io: I, small: SmallFrames, permit: Arc<Permit>) -> Self {
        let mut this = Self::new(io, small, FrameHeads::of_server(), None);
        this.content = PREFACE;
        this.newest = Some(0);
        this.permit = Some(permit);
        this
    }

    /// For the sender of GOAWAY to the client that is read.
    pub(super) fn shutdown_state(&self) -> ShutdownState {
        self.late.shutdown_state()
    }

    /// Of a server. `window` is what it takes.
    pub(super) fn of_server(io: I, small: SmallFrames, window: SendWindow) -> Self {
        let heads = FrameHeads::of_client();
        Self::new(io, small, heads, Some(Box::new(window)))
    }

    fn new(io: I, small: SmallFrames, heads: FrameHeads, window: Option<Box<SendWindow>>) -> Self {
        Self {
            io,
            content: 0,
            head: [0; LOOKED],
            got: 0,
            unread: 0,
            allowed: ALLOWED,
            small,
            flood: FloodDetector::new(),
            heads,
            dense: 0,
            newest: None,
            trailers: None,
            block: Block::None,
            permit: None,
            late: LateAnswer::none(),
            unflushed: Unflushed::new(),
            window,
        }
    }

    /// A frame of a block of fields begins.
    fn block_begins(&mut self, flags: u8) {
        let goes_on = flags & END_HEADERS == 0;
        self.block = if goes_on { Block::GoesOn } else { Block::Ends };
        if let Some(permit) = &self.permit {
            permit.head_begins();
        }
    }

    /// The reader gets the rest of the frame that was coming.
    fn frame_came(&mut self) {
        if self.block != Block::Ends {
            return;
        }
        self.block = Block::None;
        if let Some(permit) = &self.permit {
            permit.head_came();
        }
    }

    /// Whether a frame is passed on of which this was looked at; the rest of it follows.
    fn passes(&mut self, looked: &[u8]) -> bool {
        let Some((head, content)) = looked.split_first_chunk::<HEAD>() else {
            return true;
        };
        let [a, b, c, kind, flags, d, e, f, g] = *head;
        self.content = u32::from_be_bytes([0, a, b, c]) as usize - content.len();
        self.window.iter().for_each(|it| it.comes(self.content));
        self.count(kind);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block_begins(flags);
            if self.content == 0 {
                self.frame_came();
            }
        }
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
            // Only clients are sent GOAWAY.
            PING if self.newest.is_some() => !self.late.keeps(content),
            WINDOW_UPDATE => {
                // Of a stream's the content is not looked at.
                let increment = <[u8; INCREMENT]>::try_from(content);
                if let (Some(window), Ok(increment)) = (&mut self.window, increment) {
                    window.open(increment);
                }
                true
            }
            _ => true,
        }
    }

    /// Counts a frame of this type that came.
    fn count(&mut self, kind: u8) {
        // The head that was written has called for it, and a server may send heads before its
        // answer (1xx) without end.
        let answers = kind == HEADERS && self.newest.is_none();
        let for_turn = match kind {
            DATA | CONTINUATION => false,
            HEADERS | RST_STREAM => answers || self.small.paces_streams(),
            _ => true,
        };
        if for_turn {
            self.small.any_came();
            // Many answers together are read as fast as ever.
            self.dense += u32::from(!answers);
        }
        match kind {
            HEADERS if !answers => self.flood.calls_for_some(),
            DATA | CONTINUATION => {}
            _ => {
                if self.flood.came() {
                    self.small.flood();
                }
            }
        }
    }

    /// The first `written` bytes of `parts` were written; or may have been.
    fn note_written(
        &mut self,
        parts: &[IoSlice<'_>],
        written: &Poll<io::Result<usize>>,
    ) -> io::Result<()> {
        let offered = parts.iter().map(|part| part.len()).sum();
        let left = may_have_left(offered, written);
        let (flood, window) = (&mut self.flood, &mut self.window);
        self.heads
            .wrote(parts, left, |kind, length, stream| match kind {
                HEADERS => {
                    flood.calls_for_some();
                    window.iter_mut().for_each(|window| window.began(stream));
                }
                DATA => {
                    flood.data_calls_for_some(length);
                    window.iter_mut().for_each(|window| window.sent(length));
                }
                _ => {}
            });
        if self.newest.is_some() {
            self.unflushed.note(offered, written)?;
        }
        Ok(())
    }

    /// The reader gets the first `bytes` of `head` next.
    fn hand_on(&mut self, bytes: usize) {
        self.head.copy_within(..bytes, LOOKED - bytes);
        self.unread = bytes;
    }

    /// The reader has the complete last frame, and nothing of the next. Nothing may come between
    /// the frames of a block.
    const fn is_between_frames(&self) -> bool {
        let within = matches!(self.block, Block::GoesOn);
        self.content == 0 && self.got == 0 && self.unread == 0 && !within
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

    /// Skips what is not passed on, and keeps a head that is not complete. Returns how many bytes
    /// are left, at the beginning.
    fn filter(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let content = self.content.min(bytes.len() - at);
            if content > 0 {
                self.look(&bytes[at..at + content])?;
                bytes.copy_within(at..at + content, kept);
                self.content -= content;
                if self.content == 0 {
                    self.frame_came();
                }
                (at, kept) = (at + content, kept + content);
                continue;
            }
            let frame = &bytes[at..];
            let whole = looked_at(frame);
            if frame.len() < whole {
                self.head[..frame.len()].copy_from_slice(frame);
                self.got = frame.len();
                break;
            }
            if self.passes(&frame[..whole]) {
                bytes.copy_within(at..at + whole, kept);
                kept += whole;
            }
            at += whole;
        }
        Ok(kept)
    }
}

impl<I: AsyncRead + Unpin> FrameFilter<I> {
    /// Reads more of a head that has arrived in part.
    fn poll_partial_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let whole = looked_at(&self.head[..self.got]);
        let mut rest = [0; LOOKED];
        let mut rest = ReadBuf::new(&mut rest[self.got..whole]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut rest))?;
        let rest = rest.filled();
        self.head[self.got..][..rest.len()].copy_from_slice(rest);
        self.got += rest.len();
        let (looked, got) = (self.head, self.got);
        if !rest.is_empty() && got < looked_at(&looked[..got]) {
            return Poll::Ready(Ok(()));
        }
        self.got = 0;
        // Where the connection ends within a head, the reader gets what there is of it.
        if rest.is_empty() || self.passes(&looked[..got]) {
            self.hand_on(got);
        }
        Poll::Ready(Ok(()))
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
            if this.is_between_frames() && this.late.poll(cx).is_ready() {
                this.head = SHUTDOWN_ANSWER;
                this.unread = LOOKED;
            }
            if this.unread > 0 {
                let now = this.unread.min(out.remaining());
                out.put_slice(&this.head[LOOKED - this.unread..][..now]);
                this.unread -= now;
                return Poll::Ready(Ok(()));
            }
            if this.got > 0 {
                ready!(this.poll_partial_frame(cx))?;
                continue;
            }
            let before = out.filled().len();
            if this.dense > DENSE {
                let mut little = [0; LITTLE];
                let room = out.remaining().min(LITTLE);
                let mut part = ReadBuf::new(&mut little[..room]);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut part))?;
                out.put_slice(part.filled());
            } else {
                ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
            }
            this.dense = 0;
            let bytes = &mut out.filled_mut()[before..];
            if bytes.len() <= this.content {
                // In the middle of a frame, as most reads of a fast stream are; or the
                // end of the connection.
                this.look(bytes)?;
                let bytes = bytes.len();
                this.content -= bytes;
                if this.content == 0 {
                    this.frame_came();
                }
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
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, data);
        this.note_written(&[IoSlice::new(data)], &written)?;
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, data);
        this.note_written(data, &written)?;
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    forward_shutdown!(io);
}

#[cfg(test)]
mod tests;
