//! Builds the Kubernetes objects of NetworkPolicies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::labels::ACCOUNT;
use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};

use super::{
    permit::{Peer, Ports},
    pods::Pods,
    selector::Labels,
};

/// Label of every namespace that the API server keeps equal to its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A policy for the pods of namespace that carry `account` in the account label, and
/// `labels`.
pub(super) fn policy(
    account: &str,
    labels: Option<&Labels>,
    ingress: Vec<NetworkPolicyIngressRule>,
) -> NetworkPolicySpec {
    let mut wanted = plain(labels);
    wanted.insert(ACCOUNT.to_owned(), account.to_owned());
    NetworkPolicySpec {
        pod_selector: Some(selector(wanted)),
        ingress: Some(ingress),
        policy_types: Some(vec!["Ingress".to_owned()]),
        egress: None,
    }
}

/// Whatever is not UDP, from everywhere: the proxies judge TCP, and no SMI object
/// could open SCTP again.
pub(super) fn not_udp() -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: None,
        ports: Some(vec![any_port("TCP"), any_port("SCTP")]),
    }
}

/// UDP on these ports from these peers; `None` when that is nothing.
pub(super) fn udp(
    peers: &BTreeSet<&Peer>,
    ports: &Ports,
    pods: &Pods<'_>,
) -> Option<NetworkPolicyIngressRule> {
    // To Kubernetes, empty lists mean every peer and every port.
    if peers.is_empty() || ports.is_none() {
        return None;
    }
    let any_peer = peers.contains(&Peer::Any);
    let peers = peers.iter().filter_map(|peer| selected(peer, pods));
    let ports = match ports {
        Ports::Any => vec![any_port("UDP")],
        Ports::Only(ports) => ports.iter().map(|port| udp_port(*port)).collect(),
    };
    Some(NetworkPolicyIngressRule {
        from: (!any_peer).then(|| peers.collect()),
        ports: Some(ports),
    })
}

fn selected(peer: &Peer, pods: &Pods<'_>) -> Option<NetworkPolicyPeer> {
    let (namespace, labels) = match peer {
        Peer::Account(account) => {
            let label = (ACCOUNT.to_owned(), pods.hash(account).to_string());
            (Some(&account.namespace), selector(BTreeMap::from([label])))
        }
        Peer::Labelled(namespace, labels) => {
            let labels = with_account(selector(plain(Some(labels))));
            (Some(namespace), labels)
        }
        Peer::Mesh => (None, with_account(LabelSelector::default())),
        Peer::Any => return None,
    };
    Some(NetworkPolicyPeer {
        ip_block: None,
        namespace_selector: Some(namespace.map_or_else(
            LabelSelector::default,
            |name: &Arc<str>| {
                selector(BTreeMap::from([(
                    NAMESPACE_NAME.to_owned(),
                    name.to_string(),
                )]))
            },
        )),
        pod_selector: Some(labels),
    })
}

/// Only pods whose account is proven by a label.
fn with_account(selector: LabelSelector) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: ACCOUNT.to_owned(),
            operator: "Exists".to_owned(),
            values: None,
        }]),
        ..selector
    }
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}

fn plain(labels: Option<&Labels>) -> BTreeMap<String, String> {
    let labels = labels.into_iter().flatten();
    labels
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn any_port(protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: None,
        end_port: None,
    }
}

fn udp_port(port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        ..any_port("UDP")
    }
}
