//! The configuration of one proxy: its subscriptions, the resources of the newest Model that it
//! should hold, and those that were not sent yet.
//!
//! `session` decides what a batch holds. The trusted roots are a resource like any other.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::PodId;
use model::changes::Interest;
use model::published::{EncodedResource, SharedResources};
use tokio::time::Instant;
use tonic::Status;
use wire::capability::Capabilities;
use wire::v1;

use super::session::{ANSWER_TIMEOUT, Answered, Due, Session, Target};
use crate::authority::Authority;
use crate::latest_model::LatestModel;

/// What of the target is not on its way to the proxy yet; the greater one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unsent {
    Nothing,
    /// At the pace of batches.
    Paced,
    /// At once: a subscription, or a change that must not wait.
    Urgent,
}

/// The batch that is due.
#[derive(Debug)]
pub(super) enum NextBatch {
    Now(v1::Batch),
    /// None before this moment, unless something happens.
    NotBefore(Instant),
}

/// See the module header.
#[derive(Debug)]
pub(super) struct Configuration {
    session: Session,
    target: Target,
    /// Destinations that this proxy requested itself, which is what gets persisted.
    requested: BTreeSet<String>,
    /// What others requested; those of no use are dropped after the first look.
    retained: BTreeSet<String>,
    unsent: Unsent,
    /// The requested destinations changed since the last look.
    is_outdated: bool,
    /// Number of the model that was seen last, and what was read of it.
    seen: u64,
    interest: Interest,
}

impl Configuration {
    /// `retained`: what other proxies of the same workload requested. Returns also how many
    /// destinations did not fit.
    pub(super) fn new(
        hello: v1::Hello,
        mut requested: BTreeSet<String>,
        retained: BTreeSet<String>,
    ) -> (Self, usize) {
        let (session, left_out) = Session::new(hello, retained.iter().cloned());
        // What found no place is not sent to other replicas either.
        requested.retain(|name| session.destinations().contains(name));
        let configuration = Self {
            session,
            target: Target::new(),
            requested,
            retained,
            unsent: Unsent::Urgent,
            is_outdated: false,
            seen: 0,
            interest: Interest::default(),
        };
        (configuration, left_out)
    }

    /// What the proxy understands.
    pub(super) fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    /// What the proxy was sent, and has answered.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether the proxy is to send early reports.
    pub(super) fn wants_early_reports(&self) -> bool {
        let workload = self.target.get(wire::names::WORKLOAD);
        let content = workload.and_then(|workload| workload.resource.content.as_ref());
        matches!(content, Some(v1::resource::Content::Workload(own)) if own.early_reports)
    }

    /// Whether the newest model has to be read again because of what the proxy requested. Once
    /// after each change.
    pub(super) fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.is_outdated)
    }

    /// Returns how many names were skipped.
    pub(super) fn subscribe(&mut self, mut change: v1::Subscribe) -> usize {
        let unnamed = keep_names(&mut change.add);
        for name in &change.remove {
            self.requested.remove(name);
        }
        self.requested.extend(change.add.iter().cloned());
        let left_out = self.session.subscribe(change);
        self.requested
            .retain(|name| self.session.destinations().contains(name));
        self.unsent = Unsent::Urgent;
        self.is_outdated = true;
        unnamed + left_out
    }

    /// Takes the proxy's answer to a batch.
    ///
    /// # Errors
    /// When there was no such batch.
    pub(super) fn acknowledge(&mut self, ack: v1::Ack) -> Result<Answered, Status> {
        let answered = self.session.answer(ack, Instant::now());
        if answered.unknown {
            return Err(Status::invalid_argument(
                "answer to a batch that was not sent",
            ));
        }
        Ok(answered)
    }

    /// Follows the newest model. True if there may be something else to report of the proxy.
    ///
    /// # Errors
    /// When the pod is gone.
    pub(super) fn keep_up(
        &mut self,
        pod: &PodId,
        latest: &mut LatestModel,
        authority: &Authority,
    ) -> Result<bool, Status> {
        if let Some(of_objects) = self.refresh(pod, latest) {
            return Ok(of_objects);
        }
        self.look(pod, latest, authority)?;
        Ok(true)
    }

    /// Goes along with the newest model without a whole look at it. Most models hold
    /// nothing new for this proxy, and most others nothing but the state of endpoints
    /// that it knows. `None` if there may be more, otherwise whether resources that were made from
    /// objects have changed.
    fn refresh(&mut self, pod: &PodId, latest: &mut LatestModel) -> Option<bool> {
        let latest = latest.borrow_and_update();
        let compiled = latest.as_ref()?;
        let services = compiled.states_since(self.seen, &self.interest)?;
        self.seen = compiled.number();
        if services.is_empty() {
            return Some(false);
        }
        let target = &mut self.target;
        let names = compiled.model.refresh(pod, &services, target);
        let of_objects = |name: &String| {
            target
                .get(name)
                .is_some_and(|resource| resource.is_of_objects())
        };
        let objects = names.iter().any(of_objects);
        let urgent = self.session.is_urgent_among(&names, target);
        self.note_unsent(urgent);
        Some(objects)
    }

    /// Reads the newest model.
    ///
    /// # Errors
    /// When the pod is gone, or this replica must not serve it.
    pub(super) fn look(
        &mut self,
        pod: &PodId,
        latest: &mut LatestModel,
        authority: &Authority,
    ) -> Result<(), Status> {
        let compiled = latest.borrow_and_update().clone();
        let gone = || Status::not_found("the pod is gone");
        let compiled = compiled.ok_or_else(gone)?;
        let (destinations, capabilities) =
            (self.session.destinations(), self.session.capabilities());
        let set = compiled
            .model
            .resolve(pod, destinations, capabilities)
            .ok_or_else(gone)?;
        self.session.leave_out(set.left_out);
        let mut target = set.resources;
        self.drop_useless(&mut target);
        let destinations = self.session.destinations();
        self.interest = compiled.model.interest(pod, destinations);
        self.seen = compiled.number();
        if authority.is_late() {
            return Err(Status::unavailable(
                "this controller lags behind the others",
            ));
        }
        let bundle = bundle(authority, &compiled.model.index.shared);
        target.insert(bundle.resource.name.clone(), bundle);
        let urgent = self.session.is_urgent(&target);
        self.target = target;
        self.note_unsent(urgent);
        Ok(())
    }

    fn note_unsent(&mut self, urgent: bool) {
        let unsent = if urgent {
            Unsent::Urgent
        } else {
            Unsent::Paced
        };
        self.unsent = self.unsent.max(unsent);
    }

    /// Persisted destinations that lead nowhere by now are not sent: pods' addresses come and go,
    /// and no client asked for these.
    fn drop_useless(&mut self, target: &mut Target) {
        let useless = |published: &EncodedResource| match &published.resource.content {
            Some(v1::resource::Content::Destination(destination)) => matches!(
                destination.target,
                None | Some(
                    v1::destination::Target::External(_) | v1::destination::Target::Refused(_)
                )
            ),
            _ => false,
        };
        let retained = std::mem::take(&mut self.retained);
        let useless: Vec<String> = retained
            .into_iter()
            .filter(|name| target.get(name).is_none_or(|published| useless(published)))
            .collect();
        for name in &useless {
            target.remove(name);
        }
        self.session.forget(&useless);
    }

    /// The batch that is due, which counts as sent from now on.
    pub(super) fn next_batch(&mut self, now: Instant) -> NextBatch {
        let patience = NextBatch::NotBefore(now + ANSWER_TIMEOUT);
        if self.unsent == Unsent::Nothing {
            return patience;
        }
        match self.session.due(self.unsent == Unsent::Urgent, now) {
            Due::Now => {}
            Due::At(at) => return NextBatch::NotBefore(at),
            Due::AfterAnswer => return patience,
        }
        self.unsent = Unsent::Nothing;
        self.session
            .next(&self.target, now)
            .map_or(patience, NextBatch::Now)
    }

    /// True when the proxy has let a batch wait for too long.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.session.is_stuck(now)
    }

    /// Adds it to what is reported of the proxy.
    pub(super) fn add_to(&self, state: &mut v1::ProxyState) {
        state.objects = self.session.objects(&self.target);
        state.destinations = self.requested.iter().cloned().collect();
        state.given = self
            .session
            .destinations()
            .difference(&self.requested)
            .cloned()
            .collect();
    }
}

/// Keeps names of destinations and of hosts outside the mesh, and nothing else: what is kept is
/// persisted and sent to all replicas. Returns how many it skipped.
pub(super) fn keep_names(names: &mut Vec<String>) -> usize {
    let before = names.len();
    names.retain(|name| {
        let name = wire::names::parse(name);
        matches!(
            name,
            Some(wire::names::Name::Destination { .. } | wire::names::Name::External { .. })
        )
    });
    before - names.len()
}

/// The trusted roots and what a rotation needs, one resource for all streams.
fn bundle(authority: &Authority, shared: &SharedResources) -> Arc<EncodedResource> {
    let bundle = v1::Bundle::clone(&authority.bundle().borrow());
    shared.of(wire::names::BUNDLE, v1::resource::Content::Bundle(bundle))
}

#[cfg(test)]
mod tests {
    use policy::egress::MAX_NAMES;

    use super::*;

    #[test]
    fn early_reports_are_wanted_as_the_workload_says() {
        let (mut configuration, _) =
            Configuration::new(v1::Hello::default(), BTreeSet::new(), BTreeSet::new());
        assert!(!configuration.wants_early_reports(), "nothing is known yet");
        for early_reports in [true, false] {
            let own = v1::Workload {
                early_reports,
                ..v1::Workload::default()
            };
            let content = v1::resource::Content::Workload(own);
            let own = SharedResources::default().of(wire::names::WORKLOAD, content);
            configuration
                .target
                .insert(wire::names::WORKLOAD.to_owned(), own);
            assert_eq!(configuration.wants_early_reports(), early_reports);
        }
    }

    #[test]
    fn hosts_outside_mesh_are_bounded_for_each_pod() {
        let (mut configuration, _) =
            Configuration::new(v1::Hello::default(), BTreeSet::new(), BTreeSet::new());
        let host = |number: usize| format!("external/h{number}.pay.example:443");
        let change = v1::Subscribe {
            add: (0..MAX_NAMES + 2).map(host).collect(),
            ..v1::Subscribe::default()
        };
        assert_eq!(configuration.subscribe(change), 2);
        assert_eq!(configuration.session().destinations().len(), MAX_NAMES);
        let change = v1::Subscribe {
            add: vec!["destination/10.0.0.1:80".to_owned()],
            remove: vec![host(0)],
        };
        assert_eq!(configuration.subscribe(change), 0, "addresses have room");
        assert_eq!(configuration.session().destinations().len(), MAX_NAMES);
    }

    #[test]
    fn hosts_of_other_pods_make_room_for_own() {
        let host = |name: &str| format!("external/{name}.pay.example:443");
        let others: BTreeSet<String> = (0..MAX_NAMES).map(|n| host(&n.to_string())).collect();
        let (mut configuration, _) =
            Configuration::new(v1::Hello::default(), BTreeSet::new(), others);
        let change = v1::Subscribe {
            add: vec![host("own")],
            ..v1::Subscribe::default()
        };
        assert_eq!(configuration.subscribe(change), 0);
        let destinations = configuration.session().destinations();
        assert!(destinations.contains(&host("own")));
        assert_eq!(destinations.len(), MAX_NAMES);
    }

    #[test]
    fn streams_share_one_bundle_until_roots_change() {
        let (authority, shared) = (Authority::in_memory(), SharedResources::default());
        let first = bundle(&authority, &shared);
        assert!(Arc::ptr_eq(&first, &bundle(&authority, &shared)));
        let other = bundle(&Authority::in_memory(), &shared);
        assert_ne!(other.resource.version, first.resource.version);
    }
}
