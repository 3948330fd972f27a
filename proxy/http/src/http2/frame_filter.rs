//! Filters frames before `h2` reads them. It skips DATA frames that hold nothing and end nothing,
//! counts small ones for [`super::inbox`], ends a client's connection for its trailers, and delays
//! a client's answer to its server's GOAWAY ([`super::graceful_shutdown`]). Of a server's frames it
//! counts those that change how much that server takes ([`super::send_window`]), and it bounds what
//! a client does not take of its responses ([`client::Unflushed`]).
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
//! ([`super::field_count`]): a head is refused with a reason once `h2` has handed it over, but
//! trailers it keeps.
//!
//! Claims: attack-18, calls-15

mod client;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_proxy_net::forward::forward_shutdown;

use self::client::{Block, Client};
use super::flood::FloodDetector;
use super::frame_heads::{DATA, FrameHeads, HEAD, HEADERS, PREFACE};
use super::graceful_shutdown::{ACK, CONTENT, PING, SHUTDOWN_ANSWER, ShutdownState};
use super::inbox::{SMALL, SmallFrames};
use super::send_window::{INCREMENT, SendWindow, WINDOW_UPDATE};
use super::until_end::may_have_left;

const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
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

/// A connection whose frames are looked at before `h2` reads them.
#[derive(Debug)]
pub(super) struct FrameFilter<I> {
    io: I,
    peer: Peer,
    /// Bytes of the frame under way that were not looked at with its head.
    content: usize,
    held: Held,
    allowed: u32,
    small: SmallFrames,
    flood: FloodDetector,
    /// Of what is written.
    heads: FrameHeads,
    /// Frames of the last read that count for a turn.
    dense: u32,
}

/// What is read.
#[derive(Debug)]
enum Peer {
    Client(Client),
    /// With what it takes of what is written to it. On the heap: connections of clients have none,
    /// and are many.
    Server(Box<SendWindow>),
}

/// Bytes that were read, and are not in the reader's buffer.
#[derive(Debug)]
enum Held {
    Nothing,
    /// The first `got` bytes of what is looked at together and has not come whole.
    Partial {
        looked: [u8; LOOKED],
        got: usize,
    },
    /// The last `unread` bytes are what the reader gets next, and has had no room for.
    Unread {
        looked: [u8; LOOKED],
        unread: usize,
    },
}

impl Held {
    /// The reader gets the first `bytes` of `looked` next.
    fn unread(mut looked: [u8; LOOKED], bytes: usize) -> Self {
        looked.copy_within(..bytes, LOOKED - bytes);
        Self::Unread {
            looked,
            unread: bytes,
        }
    }
}

impl<I> FrameFilter<I> {
    /// Of a client, which begins with the preface. `permit` sees to slow heads.
    pub(super) fn of_client(io: I, small: SmallFrames, permit: Arc<Permit>) -> Self {
        let (heads, client) = (FrameHeads::of_server(), Client::new(permit));
        let mut this = Self::new(io, small, heads, Peer::Client(client));
        this.content = PREFACE;
        this
    }

    /// For the sender of GOAWAY to the client that is read.
    pub(super) fn shutdown_state(&self) -> ShutdownState {
        match &self.peer {
            Peer::Client(client) => client.late.shutdown_state(),
            // Only clients are sent GOAWAY.
            Peer::Server(_) => ShutdownState::default(),
        }
    }

    /// Of a server. `window` is what it takes.
    pub(super) fn of_server(io: I, small: SmallFrames, window: SendWindow) -> Self {
        let heads = FrameHeads::of_client();
        Self::new(io, small, heads, Peer::Server(Box::new(window)))
    }

    fn new(io: I, small: SmallFrames, heads: FrameHeads, peer: Peer) -> Self {
        Self {
            io,
            peer,
            content: 0,
            held: Held::Nothing,
            allowed: ALLOWED,
            small,
            flood: FloodDetector::new(),
            heads,
            dense: 0,
        }
    }

    /// Whether a frame is passed on of which this was looked at; the rest of it follows.
    fn passes(&mut self, looked: &[u8]) -> bool {
        let Some((head, content)) = looked.split_first_chunk::<HEAD>() else {
            return true;
        };
        let [a, b, c, kind, flags, d, e, f, g] = *head;
        self.content = u32::from_be_bytes([0, a, b, c]) as usize - content.len();
        if let Peer::Server(window) = &self.peer {
            window.comes(self.content);
        }
        self.count(kind);
        if let Peer::Client(client) = &mut self.peer {
            if matches!(kind, HEADERS | CONTINUATION) {
                client.block_begins(flags);
                if self.content == 0 {
                    client.frame_came();
                }
            }
            if kind == HEADERS {
                client.trailers_of(flags, u32::from_be_bytes([d & 0x7f, e, f, g]));
            } else if kind != CONTINUATION {
                client.trailers = None;
            }
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
            PING => match &mut self.peer {
                Peer::Client(client) => !client.late.keeps(content),
                // Only clients are sent GOAWAY.
                Peer::Server(_) => true,
            },
            WINDOW_UPDATE => {
                // Of a stream's the content is not looked at.
                let increment = <[u8; INCREMENT]>::try_from(content);
                if let (Peer::Server(window), Ok(increment)) = (&mut self.peer, increment) {
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
        let answers = kind == HEADERS && matches!(self.peer, Peer::Server(_));
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
        let (flood, peer) = (&mut self.flood, &mut self.peer);
        self.heads
            .wrote(parts, left, |kind, length, stream| match kind {
                HEADERS => {
                    flood.calls_for_some();
                    if let Peer::Server(window) = peer {
                        window.began(stream);
                    }
                }
                DATA => {
                    flood.data_calls_for_some(length);
                    if let Peer::Server(window) = peer {
                        window.sent(length);
                    }
                }
                _ => {}
            });
        if let Peer::Client(client) = &mut self.peer {
            client.unflushed.note(offered, written)?;
        }
        Ok(())
    }

    /// Passes on `content` of the frame that is coming.
    ///
    /// # Errors
    /// When trailers have too many fields.
    fn pass_content(&mut self, content: &[u8]) -> io::Result<()> {
        if let Peer::Client(client) = &mut self.peer {
            client.look(content)?;
        }
        self.content -= content.len();
        if let Peer::Client(client) = &mut self.peer
            && self.content == 0
        {
            client.frame_came();
        }
        Ok(())
    }

    /// Ready once when the answer to a shutdown is to come between two frames: the reader has the
    /// complete last one, and nothing of the next. Nothing may come between the frames of a block.
    fn poll_late_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.peer {
            Peer::Client(client)
                if self.content == 0
                    && matches!(self.held, Held::Nothing)
                    && client.block != Block::GoesOn =>
            {
                client.late.poll(cx)
            }
            _ => Poll::Pending,
        }
    }

    /// Skips what is not passed on, and keeps a head that is not complete. Returns how many bytes
    /// are left, at the beginning.
    fn filter(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let content = self.content.min(bytes.len() - at);
            if content > 0 {
                self.pass_content(&bytes[at..at + content])?;
                bytes.copy_within(at..at + content, kept);
                (at, kept) = (at + content, kept + content);
                continue;
            }
            let frame = &bytes[at..];
            let whole = looked_at(frame);
            if frame.len() < whole {
                let mut looked = [0; LOOKED];
                looked[..frame.len()].copy_from_slice(frame);
                let got = frame.len();
                self.held = Held::Partial { looked, got };
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
    /// Reads more of a head of which so much has arrived: the first `got` bytes of `looked`.
    fn poll_partial_frame(
        &mut self,
        mut looked: [u8; LOOKED],
        got: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let whole = looked_at(&looked[..got]);
        let mut rest = ReadBuf::new(&mut looked[got..whole]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut rest))?;
        let more = rest.filled().len();
        let got = got + more;
        self.held = if more > 0 && got < looked_at(&looked[..got]) {
            Held::Partial { looked, got }
        } else if more == 0 || self.passes(&looked[..got]) {
            // Where the connection ends within a head, the reader gets what there is of it.
            Held::unread(looked, got)
        } else {
            Held::Nothing
        };
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
            if this.poll_late_answer(cx).is_ready() {
                this.held = Held::unread(SHUTDOWN_ANSWER, LOOKED);
            }
            match &mut this.held {
                Held::Nothing => {}
                Held::Partial { looked, got } => {
                    let (looked, got) = (*looked, *got);
                    ready!(this.poll_partial_frame(looked, got, cx))?;
                    continue;
                }
                Held::Unread { looked, unread } => {
                    let now = (*unread).min(out.remaining());
                    out.put_slice(&looked[LOOKED - *unread..][..now]);
                    *unread -= now;
                    if *unread == 0 {
                        this.held = Held::Nothing;
                    }
                    return Poll::Ready(Ok(()));
                }
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
                this.pass_content(bytes)?;
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
