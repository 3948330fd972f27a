//! A graph that goes on: a line for each slot. Its reader goes on with `since`.

use std::time::SystemTime;

use bytes::Bytes;
use futures::stream;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::lines::{self, LIFE};
use super::query::GraphQuery;
use crate::aggregated::server::Answer;
use crate::graph::answer::LastShown;
use crate::graph::follow::{Graph, GraphWindow};
use crate::observe::reports::slot_of;

/// What one reader is told, and until when.
struct GraphStream {
    graph: Graph,
    query: GraphQuery,
    looks: watch::Receiver<u64>,
    shown: LastShown,
    /// The slot in which the last line was written; `None` before the first.
    told: Option<u64>,
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
pub(super) fn answer(graph: Graph, query: GraphQuery, permits: StreamPermits) -> Answer {
    let looks = graph.looks();
    let reader = GraphStream {
        graph,
        query,
        looks,
        shown: LastShown::default(),
        told: None,
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
    /// The next line; `None` after the last.
    async fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        let mut line = match self.told {
            None => self.first(SystemTime::now()),
            Some(told) => self.later(told).await,
        };
        line.push('\n');
        Some(line)
    }

    fn first(&mut self, now: SystemTime) -> String {
        self.told = Some(slot_of(now));
        let asked = &self.query.asked;
        let since = self.query.since;
        let since = since.filter(|end| self.graph.can_tell(asked.slots, *end, now));
        let written = self.graph.written(asked, now);
        written.end().clone_into(&mut self.end);
        let Some(end) = since else {
            self.shown.note(&written);
            return written.whole();
        };
        let before = GraphWindow {
            end: Some(end),
            ..asked.clone()
        };
        self.shown.note(&self.graph.written(&before, now));
        self.shown.changes(&written, true)
    }

    /// Waits for the next slot, and for what was reported of it.
    async fn later(&mut self, told: u64) -> String {
        loop {
            let looked = timeout_at(self.until, self.looks.changed()).await;
            let now = SystemTime::now();
            let asked = &self.query.asked;
            match looked {
                Ok(Ok(())) if slot_of(now) == told => {}
                Ok(Ok(())) => {
                    self.told = Some(slot_of(now));
                    let written = self.graph.written(asked, now);
                    written.end().clone_into(&mut self.end);
                    return self.shown.changes(&written, false);
                }
                // Its time is over, or the replica ends.
                Ok(Err(_)) | Err(_) => {
                    self.ended = true;
                    return LastShown::last(&self.graph.written(asked, now), &self.end);
                }
            }
        }
    }
}
