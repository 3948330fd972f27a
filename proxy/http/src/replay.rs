//! A request's body that can be sent again.
//!
//! It keeps what was sent so far, so that a request which provably never reached an
//! application can be sent to another endpoint.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Extensions;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use runtime::occupancy::ReservedBytes;

use crate::body::{Body, BoxError, empty};
use crate::failure::Failure;
use crate::head::UPGRADE_BODY;
use crate::headers;

/// Bytes of a request body kept for sending it again. Larger bodies are sent
/// once; 64 KiB holds nearly every API call and bounds memory per request.
pub(crate) const REPLAY_LIMIT: usize = 64 * 1024;
const _: () = assert!(UPGRADE_BODY <= REPLAY_LIMIT, "it is kept whole");

/// Why a copy breaks off that its sender did not break off.
const REPLACED: &str = "the body is sent elsewhere by now";

/// In the extensions of a request with a body: what is kept of it is charged there, to its sender.
#[derive(Clone, Debug)]
pub struct KeptBody(Arc<ReservedBytes>);

impl KeptBody {
    pub fn new(reserved: ReservedBytes) -> Self {
        Self(Arc::new(reserved))
    }

    /// So many bytes are kept by now.
    pub fn note(&self, bytes: usize) {
        self.0.set(bytes);
    }
}

struct Tape {
    source: Body,
    /// A copy, `None` once the body outgrew the limit. The chunks themselves would keep the
    /// buffers that they were read into, each some KiB for what may be a single byte.
    played: Option<Vec<u8>>,
    counted: Option<KeptBody>,
    trailers: Option<http::HeaderMap>,
    /// Bytes that came.
    came: u64,
    ended: bool,
    /// The copy in use, by how many there were with it.
    copy: u64,
    /// Bytes that it handed out.
    handed_out: usize,
    /// There will be no other copy.
    last: bool,
    /// Its reader had to wait for its sender.
    waits: bool,
}

/// Hands out copies of one request body.
#[derive(Clone)]
pub struct Replay {
    tape: Arc<Mutex<Tape>>,
    hint: SizeHint,
    empty: bool,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("empty", &self.empty)
            .finish_non_exhaustive()
    }
}

impl Replay {
    #[must_use]
    pub fn new(source: Body) -> Self {
        let hint = source.size_hint();
        let empty = source.is_end_stream();
        let tape = Tape {
            source,
            played: Some(Vec::new()),
            counted: None,
            trailers: None,
            came: 0,
            ended: empty,
            copy: 0,
            handed_out: 0,
            last: false,
            waits: false,
        };
        Self {
            tape: Arc::new(Mutex::new(tape)),
            hint,
            empty,
        }
    }

    /// Counts what is kept where the request has an account for it.
    #[must_use]
    pub fn counted(self, extensions: &mut Extensions) -> Self {
        self.tape.lock().counted = extensions.remove();
        self
    }

    /// It will not be sent again: nothing is kept from now on but what the last copy has not
    /// handed out.
    pub fn forget(&self) {
        if !self.empty {
            let mut tape = self.tape.lock();
            tape.last = true;
            tape.let_go();
        }
    }

    /// All of it, where that is here. `None` where it has not come whole, or is more than is
    /// kept.
    pub fn whole(&self) -> Option<Bytes> {
        if self.empty {
            return Some(Bytes::new());
        }
        if !self.is_sent() {
            return None;
        }
        let tape = self.tape.lock();
        tape.played.as_deref().map(Bytes::copy_from_slice)
    }

    /// Reads all of it from its sender, for the copies that are taken from now on.
    ///
    /// # Errors
    /// When it breaks off, or too much was sent already.
    pub async fn fill(&self) -> Result<(), Failure> {
        let copy = self.again()?;
        let filled = copy.collect().await;
        filled.map_err(|error| Failure::lost(error.to_string()))?;
        Ok(())
    }

    /// Bytes of the whole body, where that is known before. Over HTTP/2 a request without
    /// a body announces no length: its head is the end of the stream.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        if self.empty {
            return Some(0);
        }
        self.hint.exact()
    }

    /// Whether all of it was handed out by now.
    #[must_use]
    pub(crate) fn is_sent(&self) -> bool {
        self.tape.lock().is_whole(self.size())
    }

    /// Whether all of it is here to be handed out again.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.empty || (self.is_sent() && self.tape.lock().played.is_some())
    }

    /// Whether a copy can start at the beginning.
    #[must_use]
    pub fn may_be_sent(&self) -> bool {
        let may = |tape: &Tape| !tape.last && tape.played.is_some();
        self.empty || may(&self.tape.lock())
    }

    /// Whether a reader would go on and has to wait for its sender: what that takes is the sender's
    /// own time.
    #[must_use]
    pub fn waits_for_sender(&self) -> bool {
        !self.is_sent() && self.tape.lock().waits
    }

    /// No reader goes on, because the server takes nothing: that is no time of the sender.
    pub(crate) fn waits_for_server(&self) {
        self.tape.lock().waits = false;
    }

    /// The same as [`Self::take`], for an attempt that fails without a body.
    ///
    /// # Errors
    /// When too much was sent already.
    pub fn again(&self) -> Result<Body, Failure> {
        self.take()
            .ok_or_else(|| Failure::lost("the request's body is too large to be sent again"))
    }

    /// A body that starts at the beginning, or `None` when too much was sent
    /// already. An earlier copy breaks off: it may still be on its way behind an answer.
    #[must_use]
    pub fn take(&self) -> Option<Body> {
        if self.empty {
            return Some(empty());
        }
        let copy = {
            let mut tape = self.tape.lock();
            if tape.last || tape.played.is_none() {
                return None;
            }
            tape.copy += 1;
            tape.handed_out = 0;
            tape.copy
        };
        Some(
            ReplayBody {
                replay: self.clone(),
                copy,
                trailers_sent: false,
            }
            .boxed_unsync(),
        )
    }
}

impl Tape {
    fn forget(&mut self) {
        self.played = None;
        self.count();
    }

    fn count(&self) {
        if let Some(KeptBody(reserved)) = &self.counted {
            reserved.set(self.played.as_ref().map_or(0, Vec::capacity));
        }
    }

    /// Notes a chunk that is handed out.
    fn plays(&mut self, chunk: &[u8]) {
        self.came += chunk.len() as u64;
        let Some(played) = &mut self.played else {
            return;
        };
        if played.len() + chunk.len() > REPLAY_LIMIT {
            // What was played is of no use any more.
            return self.forget();
        }
        let before = played.capacity();
        played.extend_from_slice(chunk);
        if played.capacity() != before {
            self.count();
        }
    }

    fn is_whole(&self, size: Option<u64>) -> bool {
        self.ended || self.source.is_end_stream() || size == Some(self.came)
    }

    /// The next chunk; `None` at the end, and before the trailers that are kept.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let polled = Pin::new(&mut self.source).poll_frame(cx);
        self.waits = polled.is_pending();
        let Some(frame) = ready!(polled) else {
            self.ended = true;
            return Poll::Ready(None);
        };
        let frame = frame.inspect_err(|_| {
            // What came before would pass for all of it.
            self.forget();
        })?;
        match frame.into_data() {
            Ok(data) => {
                self.plays(&data);
                Poll::Ready(Some(Ok(data)))
            }
            Err(frame) => {
                self.ended = true;
                self.trailers = frame.into_trailers().ok();
                if let Some(trailers) = &mut self.trailers {
                    headers::clean_trailers(trailers);
                }
                Poll::Ready(None)
            }
        }
    }

    /// Keeps nothing more once the last copy has handed out all that is kept.
    fn let_go(&mut self) {
        if self.last && self.unread().is_none() {
            self.forget();
        }
    }

    /// What is kept and the copy in use has not handed out.
    fn unread(&self) -> Option<&[u8]> {
        let unread = self.played.as_ref()?.get(self.handed_out..)?;
        (!unread.is_empty()).then_some(unread)
    }
}

/// One reading of the body.
struct ReplayBody {
    replay: Replay,
    /// It is in use as long as the tape has the same number.
    copy: u64,
    trailers_sent: bool,
}

impl HttpBody for ReplayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let tape = Arc::clone(&self.replay.tape);
        let mut tape = tape.lock();
        if tape.copy != self.copy {
            return Poll::Ready(Some(Err(REPLACED.into())));
        }
        let unread = tape.unread().map(Bytes::copy_from_slice);
        let data = match unread {
            None if tape.ended => None,
            None => ready!(tape.poll_source(cx)).transpose()?,
            unread => unread,
        };
        if let Some(data) = data {
            tape.handed_out += data.len();
            tape.let_go();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = tape.trailers.clone().filter(|_| !self.trailers_sent);
        self.trailers_sent = true;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        if self.replay.empty {
            return true;
        }
        let tape = self.replay.tape.lock();
        let whole = tape.ended || tape.source.is_end_stream();
        let trailers = tape.trailers.is_some() && !self.trailers_sent;
        whole && !trailers && tape.unread().is_none() && tape.copy == self.copy
    }

    fn size_hint(&self) -> SizeHint {
        if self.replay.tape.lock().handed_out == 0 {
            self.replay.hint
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests;
