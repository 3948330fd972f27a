//! The subset of a large Service's endpoints that this proxy uses, as `policy::subset` computes it.
//!
//! A call computes it on demand, and again when more or fewer endpoints are ejected. A list that
//! changes is another set without a subset yet. So a call takes one lock, and none where all
//! endpoints are used.

use std::sync::Arc;

use parking_lot::Mutex;
use policy::balance::{Candidate, Picked, choose};
use policy::subset::{Member, members};
use policy::traffic::endpoint::Subset;

use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::location::LocalInfo;

/// Parts of one Service port that are kept: policies of several Services may lead there,
/// each with a part of its own.
const KEPT: usize = 4;

/// What calls go by that use a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartSettings {
    pub(super) subset: Subset,
    /// Endpoints of the own zone, which come first; 0: that does not matter.
    pub(super) zone: usize,
    /// Those that are preferred, the nearest first.
    pub(super) near: [usize; 2],
}

/// The parts of one Service port that calls have used.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<Vec<Arc<Part>>>);

#[derive(Debug)]
pub(super) struct Part {
    settings: PartSettings,
    /// Ejected endpoints of the proxy, in whatever set, and those of this set.
    all_ejected: i64,
    ejected: usize,
    /// `None`: all endpoints.
    members: Option<Vec<Member>>,
    /// Members that are preferred, which come first.
    near: [usize; 2],
}

impl Parts {
    /// The part that calls use; `None`: all.
    pub(super) fn of(
        &self,
        settings: PartSettings,
        endpoints: &[Arc<Endpoint>],
        own: &LocalInfo,
    ) -> Option<Arc<Part>> {
        let all_ejected = endpoints.first()?.ejected.get();
        let mut kept = self.0.lock();
        let at = kept.iter().position(|part| part.settings == settings);
        if let Some(known) = at.map(|at| &kept[at])
            && known.all_ejected == all_ejected
        {
            return Some(Arc::clone(known)).filter(|part| part.members.is_some());
        }
        let ejected = endpoints.iter().filter(|one| one.is_ejected()).count();
        let part = match at.map(|at| kept.remove(at)) {
            Some(known) if known.ejected == ejected => Part {
                all_ejected,
                members: known.members.clone(),
                ..*known
            },
            _ => Part::new(settings, endpoints, own, (all_ejected, ejected)),
        };
        let part = Arc::new(part);
        kept.truncate(KEPT - 1);
        kept.insert(0, Arc::clone(&part));
        Some(part).filter(|part| part.members.is_some())
    }
}

impl Part {
    fn new(
        settings: PartSettings,
        endpoints: &[Arc<Endpoint>],
        own: &LocalInfo,
        (all_ejected, ejected): (i64, usize),
    ) -> Self {
        let seeds: Vec<u64> = endpoints.iter().map(|endpoint| endpoint.seed).collect();
        let members = own.positions.and_then(|positions| {
            members(settings.subset, &seeds, settings.zone, positions, ejected)
        });
        let is_beyond = |member: &Member| settings.near.map(|end| member.index >= end);
        let members = members.map(|mut members| {
            // On the own node, in the own zone, elsewhere.
            members.sort_by_key(is_beyond);
            members
        });
        let near = settings.near.map(|end| {
            let all = members.iter().flatten();
            all.filter(|member| member.index < end).count()
        });
        Self {
            settings,
            all_ejected,
            ejected,
            members,
            near,
        }
    }

    /// The better of two members; `None`: none may take it.
    pub(super) fn choose(&self, look: impl Fn(usize) -> Candidate) -> Option<Picked> {
        let members = self.members.as_deref()?;
        let look = |at: usize| match look(members[at].index) {
            Candidate::Works { score, share, load } => Candidate::Works {
                score,
                share: share * members[at].share,
                load,
            },
            other => other,
        };
        let picked = choose(members.len(), &self.near, look, rand::random)?;
        Some(Picked {
            index: members[picked.index].index,
            ..picked
        })
    }
}
