//! The loop over all Gateways and GatewayClasses: each is reconciled when it or what the Model has
//! of it changes, and again after a while.
//!
//! May run twice, late, or be cancelled between any two lines: what is done is computed from what
//! is there now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use model::compiled::Compiled;
use model::problem::{ObjectReport, Problems};
use model::world::ObjectKey;
use policy::name::{Kind, ObjectRef};
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::apply::message_of;
use super::class::{self, Class};
use super::gateway::{Around, Driven, remove};
use crate::apiserver::events::EventRecorder;
use crate::latest_model::LatestModel;
use crate::observe::acknowledged::Observed;
use crate::settings::gateways::GatewaySettings;

/// Changes that come within this time are settled together.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two looks at a Gateway that is as it should be.
const EVERY: Duration = Duration::from_secs(10);
/// The same while its pods or its address are waited for.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks at a class: other definitions may have been installed.
const CLASS_EVERY: Duration = Duration::from_secs(30);
/// Pause after what failed.
const RETRY: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone)]
pub(crate) struct Reconciler {
    /// API server.
    pub client: Client,
    /// What Gateways there are, and what is said of them.
    pub latest: LatestModel,
    /// What their pods have acknowledged.
    pub observed: Observed,
    /// Where what is wrong is reported besides.
    pub events: EventRecorder,
    /// How they are run.
    pub settings: Arc<GatewaySettings>,
    /// Objects written.
    pub written: Counter,
}

opaque_debug!(Reconciler);

/// What is known of all Gateways and classes between two looks.
#[derive(Default)]
struct Progress {
    problems: Option<Arc<Problems>>,
    all: BTreeMap<ObjectRef, Known>,
}

/// One of them.
struct Known {
    report: ObjectReport,
    due: Instant,
    /// Of a Gateway alone.
    driven: Driven,
    /// The same: its class, as long as that was ours.
    class: Arc<str>,
    /// Nothing is said of it any more.
    is_dropped: bool,
}

impl Reconciler {
    /// Keeps all Gateways as they should be until dropped. Runs on the Lease holder only.
    pub(crate) async fn keep(mut self) {
        let mut progress = Progress::default();
        let started = Instant::now();
        loop {
            let compiled = self.latest.borrow_and_update().clone();
            if let Some(compiled) = &compiled {
                progress.follow(compiled, Instant::now());
                if let Some((object, known)) = progress.take_due(Instant::now()) {
                    let again = self.look(&object, known, compiled, started).await;
                    match again {
                        Some(pause) => known.due = Instant::now() + pause,
                        None => {
                            progress.all.remove(&object);
                        }
                    }
                    continue;
                }
            }
            let next = progress.next_due();
            tokio::select! {
                changed = self.latest.changed() => if changed.is_err() { return },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Does what is needed for one of them. Returns when to look again; `None`: never.
    async fn look(
        &self,
        object: &ObjectRef,
        known: &mut Known,
        compiled: &Compiled,
        started: Instant,
    ) -> Option<Duration> {
        let key = key_of(object);
        let outcome = if known.is_dropped {
            self.give_up(object, known, compiled).await
        } else if object.kind == Kind::GatewayClass {
            let class = Class {
                name: &key.name,
                report: &known.report,
            };
            let written = class::write(&self.client, class).await;
            written.map(|()| Some(CLASS_EVERY))
        } else {
            let around = Around {
                client: &self.client,
                compiled,
                observed: &self.observed,
                events: &self.events,
                settings: &self.settings,
                written: &self.written,
                started,
            };
            let settled = known.driven.settle(&around, &key, &known.report).await;
            settled.map(|is_settled| Some(if is_settled { EVERY } else { SOON }))
        };
        outcome.unwrap_or_else(|error| {
            warn!(%object, error = %message_of(&error), "not settled");
            Some(RETRY)
        })
    }

    /// Takes the objects of a Gateway away that is there, and of another class. While its class alone
    /// is gone it keeps them, and with them its address: the class may be made anew.
    ///
    /// # Errors
    /// When an object cannot be read or deleted.
    async fn give_up(
        &self,
        object: &ObjectRef,
        known: &Known,
        compiled: &Compiled,
    ) -> Result<Option<Duration>, kube::Error> {
        let (key, world) = (key_of(object), &compiled.world);
        let is_gateway = object.kind == Kind::Gateway;
        let facts = world.gateways.get(&key).filter(|_| is_gateway);
        let Some(facts) = facts.filter(|facts| facts.meta.uid == known.report.uid) else {
            return Ok(None);
        };
        let class = &facts.spec.class;
        let is_there = (world.gateway_classes).contains_key(&ObjectKey::new("", class));
        if !is_there && *class == known.class {
            return Ok(Some(EVERY));
        }
        remove(&self.client, &key, &known.report.uid).await?;
        Ok(None)
    }
}

impl Progress {
    /// Takes what is said of Gateways and classes.
    fn follow(&mut self, compiled: &Compiled, now: Instant) {
        let problems = &compiled.problems;
        let known = self.problems.as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, problems)) {
            return;
        }
        self.problems = Some(Arc::clone(problems));
        let ours = |object: &ObjectRef| [Kind::Gateway, Kind::GatewayClass].contains(&object.kind);
        let reports = problems.reports.iter();
        for (object, report) in reports.filter(|(object, _)| ours(object)) {
            let soon = now + SETTLE;
            let class = class_of(compiled, object);
            match self.all.get_mut(object) {
                Some(known) if known.report.uid == report.uid => {
                    if known.is_dropped || known.report != *report {
                        known.report = report.clone();
                        known.due = known.due.min(soon);
                    }
                    known.class = class;
                    known.is_dropped = false;
                }
                _ => {
                    let known = Known {
                        report: report.clone(),
                        due: soon,
                        driven: Driven::default(),
                        class,
                        is_dropped: false,
                    };
                    self.all.insert(object.clone(), known);
                }
            }
        }
        for (object, known) in &mut self.all {
            if !known.is_dropped && !problems.reports.contains_key(object) {
                known.is_dropped = true;
                known.due = now;
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.all.values().map(|known| known.due).min()
    }

    /// The one that waits longest.
    fn take_due(&mut self, now: Instant) -> Option<(ObjectRef, &mut Known)> {
        let all = self.all.iter_mut();
        let (object, known) = all.min_by_key(|(_, known)| known.due)?;
        if known.due > now {
            return None;
        }
        Some((object.clone(), known))
    }
}

/// The class that a Gateway names.
fn class_of(compiled: &Compiled, object: &ObjectRef) -> Arc<str> {
    let gateways = &compiled.world.gateways;
    let facts = gateways.get(&key_of(object));
    let facts = facts.filter(|_| object.kind == Kind::Gateway);
    facts.map_or_else(Arc::default, |facts| Arc::clone(&facts.spec.class))
}

fn key_of(object: &ObjectRef) -> ObjectKey {
    ObjectKey {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    }
}

#[cfg(test)]
mod tests;
