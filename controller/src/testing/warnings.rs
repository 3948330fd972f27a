//! Counts the warnings of the thread that a test runs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// How many there were. Clones are the same number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<AtomicUsize>);

/// Counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Counting {
    _default: DefaultGuard,
    /// Where there is one dispatcher alone, a line that is reached first on the thread of another
    /// test is taken for one without a subscriber, and stays so.
    _second: Dispatch,
}

impl Warnings {
    pub(crate) fn counted() -> (Self, Counting) {
        let warnings = Self::default();
        let counting = Counting {
            _second: Dispatch::new(warnings.clone()),
            _default: set_default(warnings.clone()),
        };
        (warnings, counting)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn event(&self, _event: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
