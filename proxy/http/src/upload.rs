//! `Upload`: the progress of a request's body from its sender. A body that its sender breaks off,
//! or that cannot be read, proves nothing about its receiver.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use policy::reason::Reason;
use weft_proxy_net::relay::Flows;

use crate::body::{Body, BoxError};
use crate::failure::Failure;

/// Knows whether the body of a request came whole, as far as it was read, and whether it
/// moves.
#[derive(Clone, Debug, Default)]
pub struct Upload(Arc<UploadState>);

#[derive(Debug, Default)]
struct UploadState {
    /// There is a body.
    comes: bool,
    broke: AtomicBool,
    forbidden: AtomicBool,
    moved: AtomicBool,
    /// Where its bytes are counted, where they are.
    flows: ArcSwapOption<Flows>,
}

/// A body may go on as long as this number stays what it was.
#[derive(Clone, Debug)]
pub struct Unchanged {
    pub then: u64,
    pub now: Arc<AtomicU64>,
}

impl Upload {
    /// `body`, and what watches it.
    pub fn watch(body: Body) -> (Body, Self) {
        Self::watch_while(body, || None)
    }

    /// The same of a body that may not always go on. What is not sent completely by then breaks
    /// off. `holds` is called once, if there is a body.
    pub fn watch_while(body: Body, holds: impl FnOnce() -> Option<Unchanged>) -> (Body, Self) {
        if body.is_end_stream() {
            return (body, Self::default());
        }
        let state = Arc::new(UploadState {
            comes: true,
            ..UploadState::default()
        });
        let watched = WatchedUpload {
            body,
            state: Arc::clone(&state),
            holds: holds(),
        };
        (watched.boxed_unsync(), Self(state))
    }

    /// Whether there is a body.
    pub fn comes(&self) -> bool {
        self.0.comes
    }

    /// What comes from now on is counted there.
    pub fn counts_on(&self, flows: &Arc<Flows>) {
        self.0.flows.store(Some(Arc::clone(flows)));
    }

    /// The failure as it is counted and answered: the caller's where the body that it sent broke off
    /// or may not be sent, else the one given.
    pub fn blame(&self, failure: Failure) -> Failure {
        if self.0.forbidden.load(Relaxed) {
            let detail = "since this request began its workload receives nothing but copies of \
                          requests, and may change nothing";
            return Failure::refused(Reason::ShadowWrite, detail);
        }
        if !self.broke() {
            return failure;
        }
        Failure::refused(
            Reason::BadRequest,
            "the request's body broke off or cannot be read",
        )
    }

    pub fn broke(&self) -> bool {
        self.0.broke.load(Relaxed)
    }

    /// Whether any of it came since the last call of this.
    pub fn moved(&self) -> bool {
        self.0.moved.swap(false, Relaxed)
    }
}

struct WatchedUpload {
    body: Body,
    state: Arc<UploadState>,
    holds: Option<Unchanged>,
}

impl HttpBody for WatchedUpload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let changed = |holds: &Unchanged| holds.now.load(Relaxed) != holds.then;
        if frame.is_some() && this.holds.as_ref().is_some_and(changed) {
            this.state.forbidden.store(true, Relaxed);
            this.state.broke.store(true, Relaxed);
            return Poll::Ready(Some(Err("the request may not go on".into())));
        }
        match &frame {
            Some(Err(_)) => this.state.broke.store(true, Relaxed),
            Some(Ok(_)) | None => this.state.moved.store(true, Relaxed),
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(flows) = &*this.state.flows.load()
        {
            flows.sent.fetch_add(data.len() as u64, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
