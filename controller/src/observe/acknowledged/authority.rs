//! Collects what replicas report of the certificate authority that they serve, and proxies of their
//! roots and certificates: by these a rotation goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use identity::verify::AuthorityId;
use wire::v1;

use super::{Observed, ReplicaStep};

/// What a connected proxy reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyTrust {
    /// Of the pod.
    pub(crate) uid: String,
    /// Roots in use; none: it has not reported any.
    pub(crate) trusts: Vec<AuthorityId>,
    /// What signed its leaf.
    pub(crate) authority: Option<AuthorityId>,
}

impl ProxyTrust {
    fn of(state: &v1::ProxyState) -> Self {
        let id = |bytes: &Vec<u8>| AuthorityId::try_from(bytes.as_slice()).ok();
        let status = state.status.as_ref();
        let trusts = status.into_iter().flat_map(|status| &status.trusts);
        let certificate = status.and_then(|status| status.certificate.as_ref());
        Self {
            uid: state.uid.clone(),
            trusts: trusts.filter_map(id).collect(),
            authority: certificate.and_then(|certificate| id(&certificate.authority)),
        }
    }
}

impl Observed {
    /// Notes what this replica serves, for the others.
    pub(crate) fn serves(&self, step: v1::AuthorityStep) {
        self.change(true, |inner| {
            let known = inner.serves.as_ref();
            if known.is_some_and(|(_, known)| *known == step) {
                return false;
            }
            inner.revision += 1;
            inner.serves = Some((inner.revision, step));
            true
        });
    }

    /// Which other replicas there are.
    pub(crate) fn follow_replicas(&self, peers: &BTreeSet<IpAddr>) {
        self.change(false, |inner| {
            let before = inner.replicas.take().unwrap_or_default();
            let step = |peer: &IpAddr| before.get(peer).cloned().unwrap_or(ReplicaStep::Unheard);
            let now: BTreeMap<_, _> = peers.iter().map(|peer| (*peer, step(peer))).collect();
            let is_news = now != before;
            inner.replicas = Some(now);
            is_news
        });
    }

    /// What the other replicas serve. None: it is not known which there are.
    pub(crate) fn replica_steps(&self) -> Option<BTreeMap<IpAddr, ReplicaStep>> {
        self.inner.state.lock().replicas.clone()
    }

    /// What the connected proxies of all replicas report, by `namespace/pod`.
    pub(crate) fn trusts(&self) -> HashMap<String, ProxyTrust> {
        let state = self.inner.state.lock();
        let of_peers = state.peers.values().flatten();
        let mut trusts: HashMap<String, ProxyTrust> = of_peers
            .map(|(key, state)| (key.clone(), ProxyTrust::of(state)))
            .collect();
        // The replica that holds the stream is right.
        for (key, own) in &state.own {
            trusts.insert(key.clone(), ProxyTrust::of(&own.state));
        }
        trusts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 8));

    fn step(step: u64) -> v1::AuthorityStep {
        v1::AuthorityStep {
            step,
            roots: vec![vec![7; 16]],
            ..v1::AuthorityStep::default()
        }
    }

    fn proxy(pod: &str, trusts: Vec<Vec<u8>>) -> v1::ProxyState {
        v1::ProxyState {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            status: Some(v1::ProxyStatus {
                trusts,
                ..v1::ProxyStatus::default()
            }),
            ..v1::ProxyState::default()
        }
    }

    fn heard(observed: &Observed) -> ReplicaStep {
        observed.replica_steps().unwrap()[&PEER].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn step_of_a_replica_arrives_behind_its_proxies() {
        let (ours, theirs) = (Observed::default(), Observed::default());
        assert_eq!(
            ours.replica_steps(),
            None,
            "it is not known which there are"
        );
        ours.follow_replicas(&BTreeSet::from([PEER]));
        assert_eq!(heard(&ours), ReplicaStep::Unheard);

        for pod in 0..300 {
            theirs.note(1, proxy(&pod.to_string(), Vec::new()));
        }
        theirs.serves(step(4));
        let (revision, messages) = theirs.own_since(0);
        assert!(messages.len() > 1);
        let steps: Vec<u64> = messages
            .iter()
            .flat_map(|one| &one.authority)
            .map(|one| one.step)
            .collect();
        assert_eq!(steps, [0, 4], "the first says that it reports any");
        for message in messages {
            ours.receive(PEER, message);
        }
        let ReplicaStep::Serves {
            step: served,
            since,
        } = heard(&ours)
        else {
            panic!("not heard");
        };
        assert_eq!(served, step(4));

        tokio::time::advance(Duration::from_secs(5)).await;
        theirs.serves(step(4));
        assert!(theirs.own_since(revision).1.is_empty(), "no news");
        theirs.serves(step(5));
        for message in theirs.own_since(revision).1 {
            ours.receive(PEER, message);
        }
        let ReplicaStep::Serves {
            step: served,
            since: later,
        } = heard(&ours)
        else {
            panic!("not heard");
        };
        assert!(served == step(5) && later > since);
        ours.lost(PEER);
        assert_eq!(heard(&ours), ReplicaStep::Unheard);
    }

    #[test]
    fn replica_that_reports_no_step_is_former() {
        let (ours, theirs) = (Observed::default(), Observed::default());
        ours.follow_replicas(&BTreeSet::from([PEER]));
        for message in theirs.own_since(0).1 {
            ours.receive(PEER, message);
        }
        assert_eq!(heard(&ours), ReplicaStep::Former);
    }

    #[test]
    fn roots_of_connected_proxies_are_known() {
        let observed = Observed::default();
        observed.note(1, proxy("web", vec![vec![7; 16], vec![1; 3]]));
        let trusts = &observed.trusts()["shop/web"].trusts;
        assert_eq!(
            *trusts,
            [AuthorityId::from([7; 16])],
            "what has another length is none"
        );
        observed.ended(1, "shop/web");
        assert!(observed.trusts().is_empty());
    }
}
