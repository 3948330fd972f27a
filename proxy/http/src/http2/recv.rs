//! The body of a message that is received by HTTP/2.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use runtime::occupancy::{InFlight, ReservedBytes};
use tokio::task::AbortHandle;

use super::cost::{StreamCost, counted};
use super::flow::Share;
use super::inbox::Inbox;
use super::trim_values;
use crate::body::BoxError;
use crate::grpc::ends_in_trailers;
use crate::stuck_upload::Answered;

/// What of a message comes after its head.
#[derive(Debug)]
pub struct RecvBody {
    inbox: Inbox,
    share: Share,
    /// What has come and waits to be read, where that is counted.
    unread: Option<ReservedBytes>,
    /// Bytes that are still to come, where that was announced.
    left: Option<u64>,
    /// Its head announces trailers.
    owes_trailers: bool,
    data_ended: bool,
    /// What still sends the request that this answers.
    upload: Option<UploadGuard>,
    /// The request whose body it is: in flight until that has come as well, whatever was
    /// answered.
    request: Option<Arc<InFlight>>,
}

/// The rest of a request on its way. Dropped before the answer has ended, it resets the stream: the
/// answer has no receiver.
#[derive(Debug)]
pub(super) struct UploadGuard {
    task: Option<AbortHandle>,
    answered: Answered,
}

impl UploadGuard {
    /// `answered`: how `task` learns that the answer has come whole.
    pub(super) const fn new(task: AbortHandle, answered: Answered) -> Self {
        Self {
            task: Some(task),
            answered,
        }
    }

    /// Lets it go on by itself, behind the answer.
    fn detach(mut self) {
        self.answered.note();
        self.task = None;
    }
}

impl Drop for UploadGuard {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl RecvBody {
    pub(super) fn new(stream: RecvStream, mut share: Share, head: &HeaderMap) -> Self {
        let left = head
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        // A length without a body is that of the answer to another method.
        if let Some(bytes) = left.filter(|_| !stream.is_end_stream()) {
            share.announces(bytes);
        }
        Self {
            inbox: share.inbox(stream),
            share,
            unread: None,
            left,
            owes_trailers: head.contains_key(header::TRAILER) || ends_in_trailers(head),
            data_ended: false,
            upload: None,
            request: None,
        }
    }

    /// Counts what waits to be read, and what was read until it was sent, at its sender.
    pub(super) fn counted(mut self, unread: ReservedBytes) -> Self {
        self.unread = Some(unread);
        self
    }

    /// The cost of bytes both ways, charged where this is, also where nothing comes any more.
    /// `None` where nothing is counted.
    pub(crate) fn cost_of_bytes(&self) -> Option<StreamCost> {
        self.unread.as_ref().map(StreamCost::of_bytes)
    }

    pub(super) fn of(mut self, request: &Arc<InFlight>) -> Self {
        if !self.inbox.lock().is_end_stream() {
            self.request = Some(Arc::clone(request));
        }
        self
    }

    /// It is no body, but one direction of what lasts as long as both sides like.
    pub(crate) fn of_no_request(mut self) -> Self {
        self.request = None;
        self
    }

    /// Bytes may wait to be read from now on, or none do.
    fn note(&mut self, unread: bool) {
        if let Some(reserved) = &self.unread {
            reserved.set(if unread { self.share.window() } else { 0 });
        }
    }

    pub(super) fn sent_by(mut self, upload: Option<UploadGuard>) -> Self {
        self.upload = upload;
        self
    }

    /// Whether all of it came although its stream was reset. Node resets many that it pipes, with
    /// NO_ERROR and without an end, and passed on as a reset that would cost what its client has
    /// not taken yet. One whose trailers were announced lacks them, such as the status of a call
    /// of gRPC.
    fn is_complete(&self, error: &h2::Error) -> bool {
        let whole = self.left == Some(0) && !self.owes_trailers;
        whole && error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR)
    }

    /// All of it came; what is left of a request that it answers may go on without it.
    fn ended(&mut self) {
        self.request = None;
        if let Some(upload) = self.upload.take() {
            upload.detach();
        }
    }
}

impl Drop for RecvBody {
    fn drop(&mut self) {
        // A reader that knew of the end did not poll for it.
        if self.upload.is_some() && (self.left == Some(0) || self.inbox.lock().is_end_stream()) {
            self.ended();
        }
    }
}

impl HttpBody for RecvBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        while !this.data_ended {
            let mut unread = this.inbox.lock();
            let polled = unread.poll_data(cx);
            let mut ended = false;
            if let Poll::Ready(Some(Ok(data))) = &polled {
                this.share
                    .give_back(unread.stream.flow_control(), data.len());
                ended = unread.is_end_stream();
            }
            drop(unread);
            this.note(!ended && matches!(polled, Poll::Ready(Some(Ok(_)))));
            match ready!(polled) {
                Some(Ok(data)) => {
                    if data.is_empty() {
                        // Has no meaning, and is not passed on.
                        continue;
                    }
                    this.share.read(data.len());
                    if let Some(left) = &mut this.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    if ended {
                        this.ended();
                    }
                    let data = match &this.unread {
                        Some(reserved) => counted(data, reserved),
                        None => data,
                    };
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) if this.is_complete(&error) => {
                    this.data_ended = true;
                    this.ended();
                    return Poll::Ready(None);
                }
                // Any other reset breaks the message off, also CANCEL: what came until then is not
                // all of it.
                Some(Err(error)) => {
                    this.data_ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(this.inbox.lock().stream.poll_trailers(cx));
        if trailers.is_ok() {
            this.ended();
        }
        Poll::Ready(match trailers {
            Ok(Some(mut trailers)) => {
                trim_values(&mut trailers);
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(None) => None,
            Err(error) if this.is_complete(&error) => None,
            Err(error) => Some(Err(error.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inbox.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Not a length that is known by chance because all of it is there already: a proxy that
        // passes the message on would announce a length that its sender did not.
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
