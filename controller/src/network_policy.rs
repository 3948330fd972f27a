//! Access control of UDP: what UDPRoutes allow, written as NetworkPolicies.
//!
//! A proxy without privileges cannot filter UDP, but the cluster's network plugin can. So for
//! every service account whose pods refuse what no TrafficTarget allows, one NetworkPolicy leaves
//! TCP to the proxies and admits only the UDP that UDPRoutes allow. The policy selects pods by the
//! label that the injector writes ([`crds::labels::ACCOUNT`]).
//!
//! NetworkPolicies add up: whatever one of them allows is allowed. A policy that leaves TCP open
//! would therefore undo one that a user wrote for the same pods, so an account with a pod that a
//! foreign policy selects gets none, and the targets that need it report so. Between a foreign
//! policy's creation and the withdrawal of ours lie the watch and one call, during which both
//! hold.
//!
//! `plan` decides, purely, from a Model and the existing policies; [`Reconciler`] carries it out.
//!
//! Only where the chart value `access.udpNetworkPolicies` is set, because it needs the right to
//! write NetworkPolicies everywhere.
//!
//! May import `apiserver` and `latest_model`.

mod live;
mod permit;
mod plan;
mod pods;
mod reconciler;
mod selector;
mod shape;

#[cfg(test)]
mod evaluate;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;

pub(crate) use self::reconciler::{Enforced, InForce, Reconciler};
pub(crate) use permit::{names_udp, udp_routes};
