//! Handles the rest of a request's body that the server did not read before it responded.
//!
//! hyper ends a connection of HTTP/1.1 where the rest of a body is not read, and no response
//! announces that: the next request on it would be lost. A server that answers before it has read
//! everything, an application, a peer proxy or this one, may read no more of it. So such a response
//! waits a moment for the rest, which is read and dropped where it has no reader, and otherwise
//! announces that the connection ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::body::{Body, BoxError};

/// So many bytes of a body are read and dropped.
const MOST: u64 = 64 * 1024;
/// An answer waits so long for them. Clients that write a head and then its body are done
/// sooner, also where the kernel holds the second back until the first was acknowledged.
const BEFORE_ANSWER: Duration = Duration::from_millis(100);

/// The error of a body that broke off, from then on.
const BROKE_OFF: &str = "the request's body broke off";

/// How far the body of one request was read.
#[derive(Debug, Default)]
enum Progress {
    /// A reader has it, or will.
    #[default]
    Read,
    Whole,
    /// What was left cannot be read.
    Broken,
    /// What is left has no reader.
    Left(Incoming),
    Answered,
}

/// Progress that the readers of a body report to the server.
#[derive(Debug, Default)]
struct BodyProgress {
    progress: Mutex<Progress>,
    /// Wakes the answer that waits.
    changed: AtomicWaker,
}

impl BodyProgress {
    /// Reading has stopped there.
    fn reached(&self, reached: Progress) {
        let mut progress = self.progress.lock();
        if matches!(*progress, Progress::Read) {
            *progress = reached;
            drop(progress);
            self.changed.wake();
        }
    }

    fn poll_reached(&self, cx: &Context<'_>) -> Poll<()> {
        self.changed.register(cx.waker());
        if matches!(*self.progress.lock(), Progress::Read) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

/// A body that comes back where it is not read to its end.
#[derive(Debug)]
pub struct Returned {
    /// `None` once all of it was read, or it broke off.
    body: Option<Incoming>,
    broke: bool,
    home: Arc<BodyProgress>,
}

/// What the server knows of a body that others read.
#[derive(Debug)]
pub struct UnreadBody {
    home: Arc<BodyProgress>,
    /// All of it may be read and dropped.
    small: bool,
    /// Its sender may wait for 100 (Continue), and then nothing comes.
    waits: bool,
}

/// The same request, whose body comes back to the [`UnreadBody`].
pub fn watch(request: Request<Incoming>) -> (Request<Returned>, UnreadBody) {
    let size = request.body().size_hint().upper();
    let rest = UnreadBody {
        home: Arc::default(),
        small: size.is_some_and(|size| size <= MOST),
        waits: request.headers().contains_key(header::EXPECT),
    };
    let home = Arc::clone(&rest.home);
    let request = request.map(|body| Returned {
        body: Some(body),
        broke: false,
        home,
    });
    (request, rest)
}

impl UnreadBody {
    /// `answer`, once the rest was read, or as the last one of its connection.
    pub async fn settle(self, mut answer: Response<Body>) -> Response<Body> {
        if answer.status().is_informational() {
            return answer;
        }
        if !self.comes(answer.status()).await {
            ends_connection(&mut answer);
        }
        answer
    }

    /// Whether the next request may come behind an answer of this status.
    async fn comes(self, status: StatusCode) -> bool {
        if matches!(*self.home.progress.lock(), Progress::Whole) {
            return true;
        }
        let until = Instant::now() + BEFORE_ANSWER;
        // A server that takes a body that is large or has no known end may answer it part by part,
        // and these answers go on at once. A refusal is none of them.
        if self.small || !status.is_success() {
            let reached = poll_fn(|cx| self.home.poll_reached(cx));
            let _ = timeout_at(until, reached).await;
        }
        let reached = std::mem::replace(&mut *self.home.progress.lock(), Progress::Answered);
        match reached {
            Progress::Whole | Progress::Answered => true,
            Progress::Read | Progress::Broken => false,
            Progress::Left(_) if self.waits => false,
            Progress::Left(body) => timeout_at(until, comes_whole(body)).await.unwrap_or(false),
        }
    }
}

/// Announces that no request is read behind this answer.
pub fn ends_connection(answer: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
}

/// Reads what is left. False: that is too much, or breaks off.
async fn comes_whole(mut body: Incoming) -> bool {
    if body.size_hint().lower() > MOST {
        return false;
    }
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > MOST {
            return false;
        }
    }
    true
}

impl Drop for Returned {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            self.home.reached(Progress::Left(body));
        }
    }
}

impl HttpBody for Returned {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            let again = this.broke.then(|| Err(BROKE_OFF.into()));
            return Poll::Ready(again);
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let reached = match &frame {
            Some(Err(_)) => Some(Progress::Broken),
            None => Some(Progress::Whole),
            Some(Ok(_)) if body.is_end_stream() => Some(Progress::Whole),
            Some(Ok(_)) => None,
        };
        if let Some(reached) = reached {
            this.broke = matches!(reached, Progress::Broken);
            this.body = None;
            this.home.reached(reached);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    /// What broke off has not ended.
    fn is_end_stream(&self) -> bool {
        !self.broke && self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None if self.broke => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use http_body::Body as HttpBody;
    use http_body_util::BodyExt;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{header, watch};
    use crate::body::text;

    /// The answer of a server that reads all of the body, and whether the body then reports its
    /// end, before and when it is polled once more.
    async fn read_by_a_server(request: &str) -> (String, [bool; 2]) {
        let (mut near, far) = duplex(4096);
        let (says, mut outcomes) = tokio::sync::mpsc::channel(1);
        let service = service_fn(move |request: Request<_>| {
            let says = says.clone();
            async move {
                let (mut request, rest) = watch(request);
                let body = request.body_mut();
                while let Some(Ok(_)) = body.frame().await {}
                let ended = body.is_end_stream();
                let ended = [ended, body.frame().await.is_none()];
                says.send(ended).await.unwrap();
                drop(request);
                let answer = rest.settle(Response::new(text("read"))).await;
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let serving = hyper::server::conn::http1::Builder::new();
        tokio::spawn(serving.serve_connection(TokioIo::new(far), service));
        near.write_all(request.as_bytes()).await.unwrap();
        let ended = outcomes.recv().await.unwrap();
        let mut answer = vec![0; 4096];
        let read = near.read(&mut answer).await.unwrap();
        answer.truncate(read);
        (String::from_utf8(answer).unwrap(), ended)
    }

    #[tokio::test]
    async fn broken_body_is_unfinished_and_response_is_last() {
        let close = format!("{}: close", header::CONNECTION);
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let (answer, ended) = read_by_a_server(&format!("{head}5\r\nhello\r\n0\r\n\r\n")).await;
        assert_eq!(ended, [true; 2]);
        assert!(!answer.contains(&close), "{answer}");
        let (answer, ended) = read_by_a_server(&format!("{head}5\r\nhello\r\nx\r\n")).await;
        assert_eq!(ended, [false; 2]);
        assert!(answer.contains(&close), "{answer}");
    }
}
