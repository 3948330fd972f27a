//! Compiles each new World to a Model, and publishes the newest Model to all tasks.
//!
//! A Revocation with `issuedBefore` is announced first and in force a moment later: meanwhile the
//! proxies that it is about get newer certificates, and lose nothing.
//!
//! May import nothing else of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{Defaults, Model, compiled::Compiled, revoked::RevocationContext, world::World};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

/// The latest of them; `None` until every store has synced.
pub(crate) type LatestModel = watch::Receiver<Option<Arc<Compiled>>>;
/// The authorities that sign certificates now, by the first half of the SHA-256 of name and key.
pub(crate) type Signing = watch::Receiver<BTreeSet<[u8; 16]>>;

/// How long a Revocation with `issuedBefore` is announced: proxies renew within a second, and a
/// stolen key is refused after five.
const ANNOUNCED: Duration = Duration::from_secs(3);
/// An object of this age was announced by others before this replica started: to announce it once
/// more would lift it.
const KNOWN_TO_OTHERS: Duration = Duration::from_secs(60);

/// Compiles every World that `worlds` brings. Ends with it.
pub(crate) async fn run(
    mut worlds: watch::Receiver<Option<Arc<World>>>,
    publish: watch::Sender<Option<Arc<Compiled>>>,
    mut defaults: Defaults,
    mut signing: Signing,
) {
    let mut announcements = Announcements::default();
    loop {
        let world = worlds.borrow_and_update().clone();
        if let Some(world) = world {
            let start = std::time::Instant::now();
            let before = publish.borrow().clone();
            announcements.look(&world, Instant::now(), SystemTime::now());
            let context = RevocationContext {
                controller: defaults.revocation.controller.clone(),
                signing: signing.borrow_and_update().clone(),
                announced: announcements.announced(),
            };
            if context != *defaults.revocation {
                defaults.revocation = Arc::new(context);
            }
            let compiled = match &before {
                Some(before) => before.after(world, &defaults),
                None => {
                    let (model, problems) = Model::compile(&world, &defaults);
                    Compiled::new(world, model, problems)
                }
            };
            debug!(
                micros = start.elapsed().as_micros(),
                problems = compiled.problems.list.len(),
                "compiled"
            );
            publish.send_replace(Some(Arc::new(compiled)));
            if before.is_none() {
                info!("first model is ready");
            }
        }
        tokio::select! {
            changed = worlds.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = changed(&mut signing) => {}
            () = passed(announcements.next()) => {}
        }
    }
}

/// Waits for another authority; for ever when there never will be any.
async fn changed(signing: &mut Signing) {
    if signing.changed().await.is_err() {
        pending().await
    }
}

/// Waits for a moment; for ever without one.
async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Which Revocations are announced, by uid, and until when. One that is in force stays so whatever
/// is written into it.
#[derive(Debug, Default)]
struct Announcements {
    /// `None`: in force.
    until: BTreeMap<Arc<str>, Option<Instant>>,
    /// This replica has looked before.
    has_looked: bool,
}

impl Announcements {
    fn look(&mut self, world: &World, now: Instant, clock: SystemTime) {
        let revocations = world.revocations.values();
        let timed = revocations.filter(|facts| facts.spec.issued_before.is_some());
        let mut until = BTreeMap::new();
        for facts in timed {
            let uid = &facts.meta.uid;
            let known = self.until.get(uid).copied();
            let at = known.unwrap_or_else(|| {
                let is_known = !self.has_looked && is_old(facts.meta.created, clock);
                (!is_known).then(|| now + ANNOUNCED)
            });
            until.insert(uid.clone(), at.filter(|at| now < *at));
        }
        // One that had no time was in force, and stays so if it gets one.
        for facts in world.revocations.values() {
            until.entry(facts.meta.uid.clone()).or_insert(None);
        }
        self.until = until;
        self.has_looked = true;
    }

    fn announced(&self) -> BTreeSet<Arc<str>> {
        let announced = self.until.iter().filter(|(_, until)| until.is_some());
        announced.map(|(uid, _)| uid.clone()).collect()
    }

    /// When the next one comes into force.
    fn next(&self) -> Option<Instant> {
        self.until.values().flatten().min().copied()
    }
}

/// Whether what was created then, in seconds since 1970, is no news.
fn is_old(created: i64, clock: SystemTime) -> bool {
    let created = UNIX_EPOCH + Duration::from_secs(u64::try_from(created).unwrap_or_default());
    let age = clock.duration_since(created).unwrap_or_default();
    age > KNOWN_TO_OTHERS
}

#[cfg(test)]
mod tests {
    use model::fixtures::{Cluster, revocation};
    use serde_json::json;

    use super::*;

    const CREATED: u64 = 1_767_225_600;

    fn world(name: &str) -> World {
        let spec = json!({"reason": "test", "issuedBefore": "2026-01-01T00:00:00Z",
            "subjects": [{"certificate": {"serial": "5f3a90"}}]});
        Cluster::default().with(revocation(name, spec)).world()
    }

    fn clock(after: Duration) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(CREATED) + after
    }

    #[test]
    fn timed_revocation_is_announced_once_and_then_in_force() {
        let (mut announcements, start) = (Announcements::default(), Instant::now());
        let world = world("leak");
        announcements.look(&World::default(), start, clock(Duration::ZERO));
        for (after, is_announced) in [(0, true), (2, true), (3, false), (4, false)] {
            let now = start + Duration::from_secs(after);
            announcements.look(&world, now, clock(Duration::from_secs(3600)));
            assert_eq!(
                announcements.announced().len() == 1,
                is_announced,
                "{after}"
            );
            let next = is_announced.then(|| start + ANNOUNCED);
            assert_eq!(announcements.next(), next, "{after}");
        }
    }

    #[test]
    fn restarted_replica_announces_no_old_revocation() {
        for (age, is_announced) in [(30, true), (61, false)] {
            let mut announcements = Announcements::default();
            let clock = clock(Duration::from_secs(age));
            announcements.look(&world("leak"), Instant::now(), clock);
            assert_eq!(announcements.announced().len() == 1, is_announced, "{age}");
        }
    }
}
