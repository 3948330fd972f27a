//! What a graph response lacks for want of room, and the sentence that reports it.

use crds::observe::GraphMetadata;

use crate::graph::window::{Incomplete, Window};
use crate::observe::reports::SLOT;

/// What had no room in a response.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overflow {
    /// Edges and nodes that are skipped.
    pub left_out: usize,
    /// Those that are shown without history or routes.
    pub bare: usize,
}

impl Overflow {
    fn why(self, beyond: usize) -> Option<String> {
        let Self { left_out, bare } = self;
        let left_out = left_out + beyond;
        (left_out + bare > 0).then(|| {
            format!(
                "the answer is too long: {left_out} edges and nodes had no room in it, and {bare} \
                 are shown without history or routes; ask for one namespace, or for less history"
            )
        })
    }

    /// What the response lacks, without its end. `beyond`: edges that were too many.
    pub(super) fn metadata(self, window: &Window, beyond: usize) -> GraphMetadata {
        let unsettled = window.incomplete == Some(Incomplete::Unsettled);
        let why = self.why(beyond);
        let lost = window.incomplete.map(Incomplete::why);
        let incomplete = match (lost, &why) {
            (lost, None) => lost.map(str::to_owned),
            (Some(lost), Some(why)) if !unsettled => Some(format!("{lost}; {why}")),
            (_, Some(why)) => Some(why.clone()),
        };
        GraphMetadata {
            window_seconds: (window.slots.1 - window.slots.0) * SLOT,
            complete: incomplete.is_none(),
            incomplete,
            unsettled: unsettled && why.is_none(),
            left_out: (beyond + self.left_out) as u64,
            sides: true,
            ..GraphMetadata::default()
        }
    }
}
