//! A graph that goes on: a line for each slot. Its reader goes on with `since`.

use std::time::SystemTime;

use bytes::Bytes;
use futures::stream;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::lines::{self, LIFE};
use super::query::GraphQuery;
use super::worker_pool::WorkerPool;
use crate::aggregated::server::ApiResponse;
use crate::graph::follow::Graph;
use crate::graph::written::{LastShown, Written};
use crate::observe::reports::slot_of;

/// What one reader is told, and until when.
struct GraphStream {
    graph: Graph,
    workers: WorkerPool,
    query: GraphQuery,
    looks: watch::Receiver<u64>,
    shown: LastShown,
    /// The slot in which the last line was written; `None` before the first.
    sent_at: Option<u64>,
    /// End of the last window that was told.
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

/// The stream as an answer.
pub(super) fn answer(
    (graph, workers): (Graph, WorkerPool),
    query: GraphQuery,
    permits: StreamPermits,
) -> ApiResponse {
    let looks = graph.looks();
    let reader = GraphStream {
        graph,
        workers,
        query,
        looks,
        shown: LastShown::default(),
        sent_at: None,
        end: String::new(),
        until: Instant::now() + LIFE,
        ended: false,
        _permits: permits,
    };
    lines::answer(stream::unfold(reader, |mut reader| async move {
        let line = reader.next().await?;
        Some((Bytes::from(line), reader))
    }))
}

impl GraphStream {
    /// The next line; `None` after the last. All of them are made beside this thread, since
    /// 64 readers of 10 000 edges compare as many hashes in every slot.
    async fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        let mut line = match self.sent_at {
            None => self.first(SystemTime::now()).await,
            Some(sent_at) => self.later(sent_at).await,
        }?;
        line.push('\n');
        Some(line)
    }

    /// What the graph says now, put into words by `render`, which knows what the reader was shown.
    /// `None` when the replica ends.
    async fn line(
        &mut self,
        now: SystemTime,
        render: impl FnOnce(&Graph, &Written, &mut LastShown) -> String + Send + 'static,
    ) -> Option<String> {
        let (graph, requested) = (self.graph.clone(), self.query.requested.clone());
        let mut shown = std::mem::take(&mut self.shown);
        let sent_at = self.workers.run_for_stream(move || {
            let written = graph.written(&requested, now);
            let line = render(&graph, &written, &mut shown);
            (line, written.end().to_owned(), shown)
        });
        let (line, end, shown) = sent_at.await.ok()?;
        (self.end, self.shown) = (end, shown);
        Some(line)
    }

    async fn first(&mut self, now: SystemTime) -> Option<String> {
        self.sent_at = Some(slot_of(now));
        let requested = self.query.requested.clone();
        let since = self.query.since;
        let render = move |graph: &Graph, written: &Written, shown: &mut LastShown| {
            let before = since.and_then(|end| graph.shown_before(&requested, end, now));
            let Some(before) = before else {
                shown.note(written);
                return written.whole();
            };
            shown.note(&before);
            shown.changes(written, true)
        };
        self.line(now, render).await
    }

    /// Waits for the next slot, and for what was reported of it.
    async fn later(&mut self, sent_at: u64) -> Option<String> {
        loop {
            let looked = timeout_at(self.until, self.looks.changed()).await;
            let now = SystemTime::now();
            match looked {
                Ok(Ok(())) if slot_of(now) == sent_at => {}
                Ok(Ok(())) => {
                    self.sent_at = Some(slot_of(now));
                    let render = |_: &Graph, written: &Written, shown: &mut LastShown| {
                        shown.changes(written, false)
                    };
                    return self.line(now, render).await;
                }
                // Its time is over, or the replica ends.
                Ok(Err(_)) | Err(_) => {
                    self.ended = true;
                    // What was told last, and not what this one says.
                    let end = self.end.clone();
                    let render = move |_: &Graph, written: &Written, _: &mut LastShown| {
                        LastShown::last(written, &end)
                    };
                    return self.line(now, render).await;
                }
            }
        }
    }
}
