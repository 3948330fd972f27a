//! The startup states of the graph, and what each still waits for.
//!
//! Three things happen in any order: a client follows the graph, so that proxies report again what
//! they counted; the checkpoint is loaded; and every proxy had time to report again.

use parking_lot::Mutex;

/// Why a response is incomplete: the checkpoint could not be loaded.
pub(crate) const UNREAD: &str =
    "what was written down of earlier calls cannot be read; the controller's log says why";

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Startup {
    /// To be followed, and for what was written down.
    New,
    /// Waits for what proxies report again, and for the checkpoint.
    Collecting,
    /// Waits for what proxies report again; the checkpoint is loaded.
    CollectingLoaded,
    /// For nothing; what was written down has not been read.
    GrownUnread,
    /// For nothing, and it lacks nothing.
    Whole,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartupEvent {
    /// From now on reports are folded.
    Followed,
    /// What was written down has been read.
    Loaded,
    /// Every proxy had time to report again what it counted.
    Grown,
}

impl Startup {
    /// Of a graph of which nothing happened yet. `written_down`: whether it is anywhere.
    const fn of(written_down: bool) -> Self {
        if written_down { Self::New } else { Self::Whole }
    }

    /// The only place in which one becomes another.
    const fn after(self, event: StartupEvent) -> Self {
        match (event, self) {
            (StartupEvent::Followed, Self::New | Self::Collecting | Self::GrownUnread) => {
                Self::Collecting
            }
            (StartupEvent::Followed, Self::CollectingLoaded | Self::Whole)
            | (StartupEvent::Loaded, Self::Collecting | Self::CollectingLoaded) => {
                Self::CollectingLoaded
            }
            (StartupEvent::Grown, Self::New | Self::Collecting | Self::GrownUnread) => {
                Self::GrownUnread
            }
            (StartupEvent::Loaded, Self::New | Self::GrownUnread | Self::Whole)
            | (StartupEvent::Grown, Self::CollectingLoaded | Self::Whole) => Self::Whole,
        }
    }

    /// Whether what was written down has been read.
    const fn has_loaded(self) -> bool {
        matches!(self, Self::CollectingLoaded | Self::Whole)
    }

    /// Whether that is waited for.
    const fn awaits_load(self) -> bool {
        matches!(self, Self::New | Self::Collecting)
    }

    /// Whether it was not read, and is not waited for any more.
    const fn lacks_loaded(self) -> bool {
        matches!(self, Self::GrownUnread)
    }

    /// Whether proxies still report what they counted before.
    const fn is_collecting(self) -> bool {
        matches!(self, Self::Collecting | Self::CollectingLoaded)
    }
}

/// How far a graph is.
#[derive(Debug)]
pub(crate) struct StartupProgress {
    state: Mutex<Startup>,
    /// Why what was written down could not be read when that was last tried.
    unread: Mutex<Option<String>>,
}

impl StartupProgress {
    /// Of a graph of which nothing happened yet. `written_down`: whether it is anywhere.
    pub(super) fn new(written_down: bool) -> Self {
        Self {
            state: Mutex::new(Startup::of(written_down)),
            unread: Mutex::default(),
        }
    }

    /// From now on reports are folded.
    pub(super) fn followed(&self) {
        self.advance(StartupEvent::Followed);
    }

    /// What was written down has been read.
    pub(crate) fn set_loaded(&self) {
        self.advance(StartupEvent::Loaded);
        *self.unread.lock() = None;
    }

    /// Every proxy had time to report again.
    pub(crate) fn grow(&self) {
        self.advance(StartupEvent::Grown);
    }

    fn advance(&self, event: StartupEvent) {
        let mut state = self.state.lock();
        *state = state.after(event);
    }

    /// What was written down could not be read, for this reason, which names the object.
    pub(crate) fn cannot_load(&self, why: String) {
        *self.unread.lock() = Some(why);
    }

    /// Why what was written down cannot be read, and what to do.
    pub(crate) fn why_unread(&self) -> String {
        let unread = self.unread.lock().clone();
        unread.unwrap_or_else(|| UNREAD.to_owned())
    }

    /// Whether it knows of the calls that were seen before this process began.
    pub(crate) fn has_loaded(&self) -> bool {
        self.state.lock().has_loaded()
    }

    /// Whether the checkpoint is not loaded yet, and will be in a moment. One that cannot be read
    /// at all would be awaited without end, so later on responses report that they lack it.
    pub(crate) fn awaits_load(&self) -> bool {
        self.state.lock().awaits_load()
    }

    /// Whether it does not, and is not waited for any more.
    pub(crate) fn lacks_loaded(&self) -> bool {
        self.state.lock().lacks_loaded()
    }

    /// Whether it is starting up, so that some proxies have not sent it yet what they counted.
    pub(super) fn is_collecting(&self) -> bool {
        self.state.lock().is_collecting()
    }
}

#[cfg(test)]
mod tests {
    use super::StartupEvent::{Followed, Grown, Loaded};
    use super::*;

    #[test]
    fn startup_waits_follow_from_events_in_any_order() {
        // Awaits and lacks the checkpoint, and what proxies report again.
        let new = (true, false, false);
        let collecting = (true, false, true);
        let collecting_loaded = (false, false, true);
        let lacks = (false, true, false);
        let whole = (false, false, false);
        for (events, expected) in [
            (&[][..], new),
            (&[Followed], collecting),
            (&[Loaded], whole),
            (&[Grown], lacks),
            (&[Followed, Loaded], collecting_loaded),
            (&[Loaded, Followed], collecting_loaded),
            (&[Followed, Loaded, Loaded], collecting_loaded),
            (&[Followed, Grown], lacks),
            (&[Followed, Grown, Grown], lacks),
            (&[Followed, Loaded, Grown], whole),
            (&[Loaded, Followed, Grown], whole),
            (&[Followed, Grown, Loaded], whole),
            (&[Followed, Grown, Loaded, Grown, Loaded], whole),
        ] {
            let all = events.iter().copied();
            let state = all.fold(Startup::of(true), Startup::after);
            let (awaits, lacks) = (state.awaits_load(), state.lacks_loaded());
            assert_eq!(
                (awaits, lacks, state.is_collecting()),
                expected,
                "{events:?}"
            );
            assert_eq!(state.has_loaded(), !awaits && !lacks, "{events:?}");
        }
        assert_eq!(Startup::of(false), Startup::Whole);
    }
}
