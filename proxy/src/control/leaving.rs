//! Detects that the mesh was uninstalled while this proxy runs.
//!
//! The uninstall marks every trust bundle, and every client that may edit ConfigMaps of a namespace
//! can write the same mark. So the mark takes nothing away from a proxy that has a valid
//! certificate and a configuration, or that a controller answers. It only spares a proxy without
//! either the wait for a controller that is not coming.
//!
//! Claims: attack-96

use std::time::SystemTime;

use policy::mode::MtlsMode;
use runtime::ready::{Hold, Ready};
use tokio::sync::watch;

use crate::config::snapshot::Snapshot;

/// How the last try to reach a controller went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contact {
    /// The stream of configuration is open.
    pub streaming: bool,
    /// No controller could be connected to. One that answers and refuses is there.
    pub unreachable: bool,
}

/// What decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The trust bundle has the mark that the mesh is being uninstalled.
    pub marked: bool,
    pub contact: Contact,
    /// The policy of the own workload is held.
    pub configured: bool,
    /// End of the certificate, if there is one.
    pub certificate_until: Option<SystemTime>,
}

/// What the mark means to this proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Nothing: there is none, or a controller answers.
    #[default]
    No,
    /// The mesh goes, and this proxy works on with what it holds.
    WithLastConfig,
    /// The mesh is gone and nothing is held that could be gone by.
    LeftBehind,
}

impl Facts {
    #[must_use]
    pub(crate) fn evaluate(&self, now: SystemTime) -> Leaving {
        let certified = self.certificate_until.is_some_and(|end| now < end);
        match self {
            Self { marked: false, .. } => Leaving::No,
            Self { contact, .. } if contact.streaming => Leaving::No,
            _ if certified && self.configured => Leaving::WithLastConfig,
            Self { contact, .. } if contact.unreachable => Leaving::LeftBehind,
            _ => Leaving::No,
        }
    }
}

impl Leaving {
    /// What `/ready` answers about it.
    #[must_use]
    pub(crate) const fn note(self) -> Option<&'static str> {
        match self {
            Self::No => None,
            Self::WithLastConfig => {
                Some("the mesh is being uninstalled: working on with the last configuration")
            }
            Self::LeftBehind => Some("the mesh is being uninstalled: relaying without it"),
        }
    }

    /// Whether a connection is relayed as if there were no proxy. No controller reports any more
    /// where Services are served, so a permissive workload calls by itself; the last rules still
    /// apply to callers while there are any.
    #[must_use]
    pub(crate) fn relays(self, outbound: bool, snapshot: &Snapshot) -> bool {
        let permissive = snapshot.mtls() == MtlsMode::Permissive;
        self == Self::LeftBehind && (!snapshot.is_complete() || (outbound && permissive))
    }
}

/// Keeps readiness true to what is held: not ready while something is awaited, unless no
/// controller will ever send it. `starting` bridges the time until the first look.
pub(crate) async fn follow_readiness(
    ready: Ready,
    mut certified: watch::Receiver<bool>,
    mut configured: watch::Receiver<bool>,
    mut leaving: watch::Receiver<Leaving>,
    starting: Hold,
) {
    let mut certificate = Some(ready.hold("certificate"));
    let mut policy = Some(ready.hold("policy of the own workload"));
    starting.release();
    loop {
        let left = *leaving.borrow_and_update();
        ready.note(left.note());
        for (hold, name, is_held) in [
            (
                &mut certificate,
                "certificate",
                *certified.borrow_and_update(),
            ),
            (
                &mut policy,
                "policy of the own workload",
                *configured.borrow_and_update(),
            ),
        ] {
            if is_held || left == Leaving::LeftBehind {
                *hold = None;
            } else if hold.is_none() {
                *hold = Some(ready.hold(name));
            }
        }
        let changed = tokio::select! {
            changed = certified.changed() => changed,
            changed = configured.changed() => changed,
            changed = leaving.changed() => changed,
        };
        if changed.is_err() {
            // The sender has ended; what was true last stays.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn left(change: impl FnOnce(&mut Facts)) -> Leaving {
        let now = SystemTime::UNIX_EPOCH + NOW;
        let mut facts = Facts {
            marked: true,
            contact: Contact {
                streaming: false,
                unreachable: true,
            },
            configured: true,
            certificate_until: Some(now + Duration::from_secs(1)),
        };
        change(&mut facts);
        facts.evaluate(now)
    }

    // Claims: C4
    #[test]
    fn uninstall_mark_counts_only_without_certificate_or_configuration() {
        assert_eq!(left(|_| ()), Leaving::WithLastConfig);
        assert_eq!(
            left(|facts| facts.certificate_until = None),
            Leaving::LeftBehind
        );
        assert_eq!(
            left(|facts| facts.certificate_until = Some(SystemTime::UNIX_EPOCH + NOW)),
            Leaving::LeftBehind,
            "a certificate that has ended"
        );
        assert_eq!(left(|facts| facts.configured = false), Leaving::LeftBehind);
        assert_eq!(left(|facts| facts.marked = false), Leaving::No);
    }

    #[test]
    fn controller_that_answers_outweighs_the_mark() {
        let fresh = |contact: Contact| {
            left(|facts| {
                facts.configured = false;
                facts.certificate_until = None;
                facts.contact = contact;
            })
        };
        let none = Contact::default();
        assert_eq!(fresh(none), Leaving::No, "not tried yet");
        let streaming = Contact {
            streaming: true,
            ..none
        };
        assert_eq!(fresh(streaming), Leaving::No);
        assert_eq!(left(|facts| facts.contact = streaming), Leaving::No);
        let unreachable = Contact {
            unreachable: true,
            ..none
        };
        assert_eq!(fresh(unreachable), Leaving::LeftBehind);
    }

    #[test]
    fn only_who_is_left_behind_relays() {
        let empty = Snapshot::default();
        for outbound in [true, false] {
            assert!(Leaving::LeftBehind.relays(outbound, &empty));
            assert!(!Leaving::WithLastConfig.relays(outbound, &empty));
            assert!(!Leaving::No.relays(outbound, &empty));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_follows_configuration_and_mark_in_both_directions() {
        let ready = Ready::new();
        let (certified, certified_seen) = watch::channel(false);
        let (configured, configured_seen) = watch::channel(false);
        let (leaving, leaving_seen) = watch::channel(Leaving::No);
        tokio::spawn(follow_readiness(
            ready.clone(),
            certified_seen,
            configured_seen,
            leaving_seen,
            ready.hold("start"),
        ));
        let settle = || tokio::time::sleep(Duration::from_millis(1));
        settle().await;
        assert_eq!(
            ready.waiting(),
            ["certificate", "policy of the own workload"]
        );
        leaving.send_replace(Leaving::LeftBehind);
        settle().await;
        assert!(ready.is_ready() && ready.noted().unwrap().contains("relaying without it"));
        // A new installation takes the mark away before this proxy has anything.
        leaving.send_replace(Leaving::No);
        settle().await;
        assert_eq!((ready.waiting().len(), ready.noted()), (2, None));
        certified.send_replace(true);
        settle().await;
        assert_eq!(ready.waiting(), ["policy of the own workload"]);
        configured.send_replace(true);
        leaving.send_replace(Leaving::WithLastConfig);
        settle().await;
        assert!(ready.is_ready() && ready.noted().unwrap().contains("last configuration"));
        leaving.send_replace(Leaving::No);
        settle().await;
        assert!(ready.is_ready() && ready.noted().is_none());
    }
}
