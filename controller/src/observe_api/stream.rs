//! Streamed responses: JSON objects, one a line. The streamed graph has a line for each interval,
//! and its client resumes it with `since`.
//!
//! The API server cuts what it takes for a plain call after 60 s. So a stream ends itself before
//! that with a last line; its client requests it again and is authorized anew.
//!
//! Paths and headers in it come from any caller, and `kubectl get --raw` prints them as they are:
//! what a terminal acts upon is escaped.

use std::convert::Infallible;
use std::future::ready;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use policy::terminal::escaped_json;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::query::GraphQuery;
use super::worker_pool::WorkerPool;
use crate::aggregated::bodies::{AnswerBudget, Share};
use crate::aggregated::refusal::Refusal;
use crate::aggregated::server::{ApiResponse, whole};
use crate::graph::follow::Graph;
use crate::graph::written::{LastShown, Written};
use crate::observe::reports::interval_of;

/// From a stream's begin to its end.
pub(super) const LIFE: Duration = Duration::from_secs(50);

/// These lines, as they come.
pub(super) fn line_stream(lines: impl Stream<Item = Bytes> + Send + 'static) -> ApiResponse {
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
    let mut answer = whole(StatusCode::OK, Bytes::new());
    *answer.body_mut() = StreamBody::new(frames).boxed_unsync();
    answer
}

/// One line.
pub(super) fn line(message: &impl Serialize) -> Bytes {
    let mut line = escaped_json(serde_json::to_string(message).unwrap_or_default());
    line.push('\n');
    line.into()
}

/// What one reader receives, and until when.
struct GraphStream {
    graph: Graph,
    workers: WorkerPool,
    query: GraphQuery,
    looks: watch::Receiver<u64>,
    shown: LastShown,
    /// The interval in which the last line was written.
    sent_at: u64,
    /// End of the last window that was sent; empty before the first.
    end: String,
    until: Instant,
    ended: bool,
    _permits: StreamPermits,
}

/// What a stream takes while it lasts.
pub(super) struct StreamPermits {
    _permits: [OwnedSemaphorePermit; 2],
    open: Gauge,
}

impl StreamPermits {
    /// One more is open.
    pub(super) fn new(permits: [OwnedSemaphorePermit; 2], open: Gauge) -> Self {
        open.inc();
        Self {
            _permits: permits,
            open,
        }
    }
}

impl Drop for StreamPermits {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The stream as a response. Its first line is made before its head, so that one that finds no room
/// is refused with a message.
///
/// # Errors
/// When there is no room for its first line, or the replica ends.
pub(super) async fn answer(
    (graph, workers): (Graph, WorkerPool),
    query: GraphQuery,
    answers: AnswerBudget,
    permits: StreamPermits,
) -> Result<ApiResponse, Refusal> {
    let looks = graph.looks();
    let mut reader = GraphStream {
        graph,
        workers,
        query,
        looks,
        shown: LastShown::default(),
        sent_at: 0,
        end: String::new(),
        until: Instant::now() + LIFE,
        ended: false,
        _permits: permits,
    };
    let (first, room) = reader.first(SystemTime::now(), answers).await?;
    let later = stream::unfold(reader, |mut reader| async move {
        let line = reader.later().await?;
        Some((with_newline(line), reader))
    });
    let stream = line_stream(stream::once(ready(with_newline(first))).chain(later));
    Ok(match room {
        Some(room) => room.of_first_line(stream),
        None => stream,
    })
}

/// It has room for that.
fn with_newline(mut line: String) -> Bytes {
    line.push('\n');
    line.into()
}

impl GraphStream {
    /// The graph of now, written by `render`, which knows what the reader was shown. All of them
    /// are made beside this thread, since 64 readers of 10 000 edges compare as many hashes in
    /// every interval.
    ///
    /// # Errors
    /// When the replica ends.
    async fn line<T: Send + 'static>(
        &mut self,
        now: SystemTime,
        render: impl FnOnce(&Graph, &Written, &mut LastShown) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (graph, requested) = (self.graph.clone(), self.query.requested.clone());
        let mut shown = std::mem::take(&mut self.shown);
        let work = move || {
            let written = graph.written(&requested, now);
            let line = render(&graph, &written, &mut shown);
            (line, written.end().to_owned(), shown)
        };
        // The first is made before the head, with the permit and the time limit of a call: it
        // waits with these, and not for the lines of all streams.
        let made = if self.end.is_empty() {
            self.workers.run(work).await
        } else {
            self.workers.run_for_stream(work).await
        };
        let (line, end, shown) = made?;
        (self.end, self.shown) = (end, shown);
        Ok(line)
    }

    /// The first line, and the room for it where it needs some. For all of the graph that is
    /// there before it is one text; of what changed it is known then how long it is.
    async fn first(
        &mut self,
        now: SystemTime,
        answers: AnswerBudget,
    ) -> Result<(String, Option<Share>), Refusal> {
        self.sent_at = interval_of(now);
        let requested = self.query.requested.clone();
        let since = self.query.since;
        let render = move |graph: &Graph, written: &Written, shown: &mut LastShown| {
            let before = since.and_then(|end| graph.shown_before(&requested, end, now));
            let Some(before) = before else {
                let room = answers.begins(written.length())?;
                shown.note(written);
                return Ok::<_, Refusal>((written.whole(), room));
            };
            shown.note(&before);
            let line = shown.changes(written, true);
            let room = answers.begins(line.len() + 1)?;
            Ok((line, room))
        };
        self.line(now, render).await?
    }

    /// Waits for the next interval, and for what was reported of it: the next line; `None` after the
    /// last, and when the replica ends.
    async fn later(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        loop {
            let looked = timeout_at(self.until, self.looks.changed()).await;
            let now = SystemTime::now();
            match looked {
                Ok(Ok(())) if interval_of(now) == self.sent_at => {}
                Ok(Ok(())) => {
                    self.sent_at = interval_of(now);
                    let render = |_: &Graph, written: &Written, shown: &mut LastShown| {
                        shown.changes(written, false)
                    };
                    return self.line(now, render).await.ok();
                }
                // Its time is over, or the replica ends.
                Ok(Err(_)) | Err(_) => {
                    self.ended = true;
                    // What was sent last, and not what this one has.
                    let end = self.end.clone();
                    let render = move |_: &Graph, written: &Written, _: &mut LastShown| {
                        LastShown::last(written, &end)
                    };
                    return self.line(now, render).await.ok();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::line;

    // Claims: observe-16
    #[test]
    fn stream_line_escapes_terminal_characters_and_keeps_meaning() {
        let message = json!({"path": "/caf\u{e9}\n\u{202e}x\u{9b}2J"});
        let line = line(&message);
        let text = std::str::from_utf8(&line).unwrap();
        assert_eq!(text, "{\"path\":\"/caf\u{e9}\\n\\u202ex\\u009b2J\"}\n");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), message);
    }
}
