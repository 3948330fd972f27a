//! What pods are given of limits and are offered, in the words of the wire.

use std::collections::BTreeMap;

use policy::limit::offered::Offered;
use wire::v1;

use super::key::ShareOf;

/// A share as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Given {
    /// The term of the divider; a later one counts.
    pub(super) term: u64,
    pub(super) number: u64,
    pub(super) thousandths: u64,
}

pub(super) fn message(of: &ShareOf, given: Given) -> v1::Share {
    v1::Share {
        of: Some(of.message()),
        thousandths: given.thousandths,
        term: given.term,
        number: given.number,
    }
}

pub(super) fn pod_shares(uid: &str, shares: &BTreeMap<ShareOf, Given>) -> v1::PodShares {
    v1::PodShares {
        uid: uid.to_owned(),
        gone: false,
        shares: shares
            .iter()
            .map(|(of, given)| message(of, *given))
            .collect(),
        offered: Vec::new(),
    }
}

pub(super) fn loads(offered: &BTreeMap<ShareOf, Offered>) -> Vec<v1::OfferedLoad> {
    let loads = offered.iter().map(|(of, load)| v1::OfferedLoad {
        of: Some(of.message()),
        thousandths: load.thousandths,
        refused: load.refused,
    });
    loads.collect()
}

pub(super) fn read_offered(loads: &[v1::OfferedLoad]) -> impl Iterator<Item = (ShareOf, Offered)> {
    loads.iter().filter_map(|load| {
        let offered = Offered {
            thousandths: load.thousandths,
            refused: load.refused,
        };
        Some((ShareOf::read(load.of.as_ref()?)?, offered))
    })
}

pub(super) fn read(reported: &v1::PodShares) -> impl Iterator<Item = (ShareOf, Given)> {
    reported.shares.iter().filter_map(|share| {
        let given = Given {
            term: share.term,
            number: share.number,
            thousandths: share.thousandths,
        };
        Some((ShareOf::read(share.of.as_ref()?)?, given))
    })
}
