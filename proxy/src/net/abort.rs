//! Connections whose close can be made a reset, so that it looks like what it is: not
//! the end of what was sent.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::TcpStream;

use crate::net::coalesce::Coalescing;
use crate::net::connect;
use crate::net::prefixed::Prefixed;

/// Says that a connection must be reset when it is dropped. In the extensions of the
/// message that may switch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abort(Arc<AtomicBool>);

impl Abort {
    pub(crate) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    #[must_use]
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Connections whose close can be made a reset.
pub(crate) trait MayAbort {
    /// The close looks like what it is: not the end of what was sent.
    fn abort(&mut self);

    /// Whether the other end has ended both directions at once, as far as that can be told:
    /// what is sent reaches nobody.
    fn was_reset(&self) -> bool {
        false
    }
}

impl MayAbort for TcpStream {
    fn abort(&mut self) {
        connect::reset(self);
    }

    fn was_reset(&self) -> bool {
        // The kernel forgets who was at the other end; of a FIN alone it does not.
        self.peer_addr().is_err()
    }
}

#[cfg(test)]
impl MayAbort for tokio::io::DuplexStream {
    fn abort(&mut self) {}
}

/// TLS that ends without `close_notify` tells as much.
impl MayAbort for tokio_rustls::server::TlsStream<Coalescing> {
    fn abort(&mut self) {}
}

impl<S: MayAbort> MayAbort for Prefixed<S> {
    fn abort(&mut self) {
        self.inner.abort();
    }

    fn was_reset(&self) -> bool {
        self.inner.was_reset()
    }
}
