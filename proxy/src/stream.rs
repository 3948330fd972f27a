//! A byte stream between two proxies: the bodies of one HTTP/2 exchange, one for
//! each direction. Bytes pass as they came off the wire, without another copy.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{Body, BoxError};
use crate::peer::SMALL_PIECE;

/// What one side says: one piece at a time, taken when HTTP/2 has room for it.
#[derive(Debug, Default)]
struct Slot {
    piece: Option<Bytes>,
    end: End,
    /// HTTP/2 wants no more: the exchange is over.
    gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Finished,
    /// Dropped before its end: the peer must not take what came for all of it.
    Broken,
}

/// The sending half.
#[derive(Debug)]
pub struct Sender(Arc<Mutex<Slot>>);

/// The body that carries what a [`Sender`] sends.
struct Outgoing(Arc<Mutex<Slot>>);

/// A sender, and the body that carries what it sends.
#[must_use]
pub fn outgoing() -> (Sender, Body) {
    let slot = Arc::new(Mutex::new(Slot::default()));
    (Sender(Arc::clone(&slot)), Outgoing(slot).boxed_unsync())
}

impl Sender {
    /// Waits until the piece before was taken.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slot = self.0.lock();
        if slot.gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slot.piece.is_none() {
            return Poll::Ready(Ok(()));
        }
        slot.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn send(&self, piece: Bytes) {
        let mut slot = self.0.lock();
        slot.piece = Some(piece);
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }

    fn end(&self, end: End) {
        let mut slot = self.0.lock();
        if slot.end == End::Open {
            slot.end = end;
            if let Some(reader) = slot.reader.take() {
                reader.wake();
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end(End::Broken);
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut slot = self.0.lock();
        if let Some(piece) = slot.piece.take() {
            if let Some(writer) = slot.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match slot.end {
            End::Finished => Poll::Ready(None),
            End::Broken => Poll::Ready(Some(Err("the connection broke off".into()))),
            End::Open => {
                slot.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.gone = true;
        if let Some(writer) = slot.writer.take() {
            writer.wake();
        }
    }
}

/// Both directions. Dropped before its end, it resets the exchange.
#[derive(Debug)]
pub struct Stream {
    out: Sender,
    incoming: Incoming,
    /// Came, and was not read yet.
    rest: Bytes,
}

impl Stream {
    #[must_use]
    pub const fn new(out: Sender, incoming: Incoming) -> Self {
        Self {
            out,
            incoming,
            rest: Bytes::new(),
        }
    }

    /// The next bytes; empty at the end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.rest)));
        }
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => Ok(Bytes::new()),
                Some(Err(error)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => Ok(data),
                    // Empty frames and trailers say nothing here.
                    _ => continue,
                },
            });
        }
    }

    /// Sends `piece` as it is, and leaves it empty.
    pub fn poll_send(&self, cx: &mut Context<'_>, piece: &mut Bytes) -> Poll<io::Result<()>> {
        if !piece.is_empty() {
            ready!(self.out.poll_ready(cx))?;
            self.out.send(std::mem::take(piece));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut piece = ready!(this.poll_piece(cx))?;
        let now = piece.split_to(piece.len().min(out.remaining()));
        out.put_slice(&now);
        this.rest = piece;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.out.poll_ready(cx))?;
        let taken = data.len().min(SMALL_PIECE);
        self.out.send(Bytes::copy_from_slice(&data[..taken]));
        Poll::Ready(Ok(taken))
    }

    /// HTTP/2 sends as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.end(End::Finished);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use http_body_util::BodyExt;

    use super::{Sender, outgoing};

    async fn send(sender: &Sender, piece: &'static [u8]) -> std::io::Result<()> {
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        sender.send(Bytes::from_static(piece));
        Ok(())
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_and_the_end_is_told() {
        let (sender, mut body) = outgoing();
        let sent = async {
            for piece in [&b"one"[..], b"two", b"three"] {
                send(&sender, piece).await.unwrap();
            }
            sender.end(super::End::Finished);
        };
        let read = async {
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                got.push(frame.unwrap().into_data().unwrap());
            }
            got
        };
        let (got, ()) = tokio::join!(read, sent);
        assert_eq!(got, ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn a_sender_waits_until_its_last_piece_was_taken() {
        let (sender, mut body) = outgoing();
        send(&sender, b"one").await.unwrap();
        let second = async {
            send(&sender, b"two").await.unwrap();
            "sent"
        };
        tokio::select! {
            biased;
            _ = second => panic!("two pieces at once"),
            () = tokio::task::yield_now() => {}
        }
        body.frame().await.unwrap().unwrap();
        send(&sender, b"two").await.unwrap();
    }

    #[tokio::test]
    async fn a_sender_that_is_dropped_early_breaks_the_body_off() {
        let (sender, mut body) = outgoing();
        send(&sender, b"one").await.unwrap();
        drop(sender);
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err(), "an end was told");
    }

    #[tokio::test]
    async fn a_sender_learns_that_nobody_wants_more() {
        let (sender, body) = outgoing();
        send(&sender, b"one").await.unwrap();
        drop(body);
        assert!(send(&sender, b"two").await.is_err());
    }
}
