//! What is left of a request's body when its answer is there.
//!
//! hyper ends a connection of HTTP/1.1 where nobody reads the rest of a body, and no answer
//! says so: the next request on it would be lost. So a rest that nobody wants is read and
//! dropped where it is small and comes soon, and otherwise the answer says that the
//! connection ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::http::body::{Body, BoxError};
use crate::http::headers;

/// So many bytes of a body are read for nobody.
const MOST: u64 = 64 * 1024;
/// An answer waits so long for them. Clients that write a head and then its body are done
/// sooner, also where the kernel holds the second back until the first was acknowledged.
const BEFORE_ANSWER: Duration = Duration::from_millis(100);
/// Whoever has its answer already may take longer.
const BEHIND_ANSWER: Duration = Duration::from_secs(1);

/// How far the body of one request was read.
#[derive(Debug, Default)]
enum Progress {
    /// Somebody reads it, or will.
    #[default]
    Read,
    Whole,
    /// What was left cannot be read.
    Broken,
    /// Nobody reads what is left.
    Left(Incoming),
    Answered,
}

type Home = Arc<Mutex<Progress>>;

/// A body that comes back where it is not read to its end.
#[derive(Debug)]
pub struct Returned {
    /// `None` once all of it was read.
    body: Option<Incoming>,
    home: Home,
}

/// What the server knows of a body that others read.
#[derive(Debug)]
pub(crate) struct Rest {
    home: Home,
    /// All of it may be read for nobody.
    small: bool,
    /// Its sender may wait to be asked for it, and then nothing comes.
    waits: bool,
}

/// The same request, whose body comes back to the [`Rest`].
pub(crate) fn watch(request: Request<Incoming>) -> (Request<Returned>, Rest) {
    let size = request.body().size_hint().upper();
    let rest = Rest {
        home: Home::default(),
        small: size.is_some_and(|size| size <= MOST),
        waits: request.headers().contains_key(header::EXPECT),
    };
    let home = Arc::clone(&rest.home);
    let request = request.map(|body| Returned {
        body: Some(body),
        home,
    });
    (request, rest)
}

impl Rest {
    /// `answer`, once the rest was read, or as the last one of its connection.
    pub(crate) async fn settle(self, mut answer: Response<Body>) -> Response<Body> {
        if answer.status().is_informational() {
            return answer;
        }
        let before = std::mem::replace(&mut *self.home.lock(), Progress::Answered);
        let goes_on = match before {
            Progress::Whole | Progress::Answered => true,
            Progress::Broken => false,
            // Applications may answer before they have read everything. A peer proxy that
            // refused a request reads no more of it, which is known here only later.
            Progress::Read => self.small || !answer.headers().contains_key(headers::REASON),
            Progress::Left(body) => !self.waits && comes_whole(body, BEFORE_ANSWER).await,
        };
        if !goes_on {
            ends_connection(&mut answer);
        }
        answer
    }
}

/// Says that no request is read behind this answer.
pub(crate) fn ends_connection(answer: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
}

/// Reads what is left. False: that is too much, takes too long, or breaks off.
async fn comes_whole(mut body: Incoming, within: Duration) -> bool {
    if body.size_hint().lower() > MOST {
        return false;
    }
    let all = async {
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > MOST {
                return false;
            }
        }
        true
    };
    timeout(within, all).await.unwrap_or(false)
}

impl Drop for Returned {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let mut progress = self.home.lock();
        match *progress {
            Progress::Read => *progress = Progress::Left(body),
            Progress::Answered => {
                // One for each connection at most: it reads no head before this is over.
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(comes_whole(body, BEHIND_ANSWER));
                }
            }
            Progress::Whole | Progress::Broken | Progress::Left(_) => {}
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
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let reached = match &frame {
            // It stays: a body that broke off must not look as if it had ended.
            Some(Err(_)) => Some(Progress::Broken),
            None => Some(Progress::Whole),
            Some(Ok(_)) if body.is_end_stream() => Some(Progress::Whole),
            Some(Ok(_)) => None,
        };
        if let Some(reached) = reached {
            if matches!(reached, Progress::Whole) {
                this.body = None;
            }
            let mut progress = this.home.lock();
            if matches!(*progress, Progress::Read) {
                *progress = reached;
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(none, HttpBody::size_hint)
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
    use crate::http::body::text;

    /// What a server answers that reads all of the body, and whether the body then says
    /// that it has ended.
    async fn read_by_a_server(request: &str) -> (String, bool) {
        let (mut near, far) = duplex(4096);
        let (says, mut said) = tokio::sync::mpsc::channel(1);
        let service = service_fn(move |request: Request<_>| {
            let says = says.clone();
            async move {
                let (mut request, rest) = watch(request);
                let body = request.body_mut();
                while let Some(Ok(_)) = body.frame().await {}
                says.send(body.is_end_stream()).await.unwrap();
                drop(request);
                let answer = rest.settle(Response::new(text("read"))).await;
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let serving = hyper::server::conn::http1::Builder::new();
        tokio::spawn(serving.serve_connection(TokioIo::new(far), service));
        near.write_all(request.as_bytes()).await.unwrap();
        let ended = said.recv().await.unwrap();
        let mut answer = vec![0; 4096];
        let read = near.read(&mut answer).await.unwrap();
        answer.truncate(read);
        (String::from_utf8(answer).unwrap(), ended)
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_has_not_ended_and_its_answer_is_the_last_one() {
        let close = format!("{}: close", header::CONNECTION);
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let (answer, ended) = read_by_a_server(&format!("{head}5\r\nhello\r\n0\r\n\r\n")).await;
        assert!(ended && !answer.contains(&close), "{answer}");
        let (answer, ended) = read_by_a_server(&format!("{head}5\r\nhello\r\nx\r\n")).await;
        assert!(!ended && answer.contains(&close), "{answer}");
    }
}
