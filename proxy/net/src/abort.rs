//! `Abort`: closes a connection by a reset, so that the peer does not take the close for the end of
//! what was sent; and the trait of connections that can do so.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;

use futures::task::AtomicWaker;
use tokio::net::TcpStream;

use crate::coalesce::Coalescing;
use crate::connect;
use crate::prefixed::Prefixed;

/// Marks that a connection must be reset when it is dropped. In the extensions of the message
/// that may switch.
#[derive(Clone, Debug, Default)]
pub struct Abort(Arc<Signals>);

#[derive(Debug, Default)]
struct Signals {
    abort: AtomicBool,
    checks: AtomicBool,
    discards: AtomicBool,
    half_closes: AtomicBool,
    /// Waits until the other end takes more.
    stuck: AtomicWaker,
}

impl Abort {
    pub fn set(&self) {
        self.0.abort.store(true, Relaxed);
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.abort.load(Relaxed)
    }

    /// The same, and what is written from now on goes nowhere: hyper would wait until the other
    /// end has taken all of it, which may be never.
    pub fn discard(&self) {
        self.0.discards.store(true, Relaxed);
        self.set();
        self.0.stuck.wake();
    }

    /// Wakes the task of the connection where what it writes is to go nowhere.
    pub fn waits(&self, cx: &Context<'_>) {
        self.0.stuck.register(cx.waker());
    }

    #[must_use]
    pub fn discards(&self) -> bool {
        self.0.discards.load(Relaxed)
    }

    /// The connection goes on in the other direction after its shutdown was sent, and its sender
    /// reads what comes.
    pub fn half_close(&self) {
        self.0.half_closes.store(true, Relaxed);
    }

    #[must_use]
    pub fn half_closes(&self) -> bool {
        self.0.half_closes.load(Relaxed)
    }

    /// The next flush of the connection fails where the other end has broken it off. Nothing else
    /// shows that on a connection that has no reader at the time.
    pub fn check_next_flush(&self) {
        self.0.checks.store(true, Relaxed);
    }

    /// Whether that flush is this one.
    pub fn take_check(&self) -> bool {
        // The swap only where it changes something: flushes are many.
        self.0.checks.load(Relaxed) && self.0.checks.swap(false, Relaxed)
    }
}

/// Connections whose close can be made a reset.
pub trait MayAbort {
    /// The close looks like what it is: not the end of what was sent.
    fn abort(&mut self);

    /// Its shutdown is over when it is sent, and takes nothing of what comes: that has a reader.
    fn half_close(&mut self) {}

    /// Whether the other end has ended both directions at once, as far as that can be seen: what
    /// is sent reaches no reader.
    fn was_reset(&mut self, _: &mut Context<'_>) -> bool {
        false
    }

    /// Whether the other end has reset it, though bytes may be left to be read.
    ///
    /// # Errors
    /// When it has, at the first call of this.
    fn broken(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }
}

impl MayAbort for TcpStream {
    fn abort(&mut self) {
        connect::reset(self);
    }

    fn was_reset(&mut self, _: &mut Context<'_>) -> bool {
        // The kernel forgets the other end then; after a FIN alone it does not.
        self.peer_addr().is_err()
    }

    fn broken(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        connect::broken(self)
    }
}

/// A pipe in memory, by which tests stand in for a socket: there is nothing below it to reset.
impl MayAbort for tokio::io::DuplexStream {
    fn abort(&mut self) {}
}

/// TLS that ends without `close_notify` shows as much.
impl MayAbort for tokio_rustls::server::TlsStream<Coalescing> {
    fn abort(&mut self) {}

    fn broken(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        self.get_ref().0.broken()
    }
}

/// The same of a connection whose first message was read before.
impl MayAbort for tokio_rustls::server::TlsStream<Prefixed<Coalescing>> {
    fn abort(&mut self) {}

    fn broken(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        self.get_ref().0.inner.broken()
    }
}

impl<S: MayAbort> MayAbort for Prefixed<S> {
    fn abort(&mut self) {
        self.inner.abort();
    }

    fn half_close(&mut self) {
        self.inner.half_close();
    }

    fn was_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.inner.was_reset(cx)
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.inner.broken(cx)
    }
}
