//! The redirection rules as plain data: two chains of rules, which are read from top to bottom
//! until one decides.
//!
//! The proxy's own connections are never redirected, neither out nor in. That
//! settles self-calls as well: an application that calls its own Service leaves
//! towards the Service's address and is captured like any call; when the proxy
//! then picks this very pod, its connection runs over loopback to the mesh port
//! or the application and no rule touches it. The outbound side decides which.
//!
//! Traffic over loopback is the pod talking to itself and stays direct, also
//! when the application uses the pod's own address.
//!
//! Packets that the pod only forwards, for a VPN or a container inside the
//! container, are no calls to this pod and pass. The kernel's routing
//! decides which these are, by the table of the namespace's own addresses: of
//! each interface, link-local ones and routes of type `local` included. So a
//! neighbour that sends to another address of the pod is redirected as before.

use ipnet::IpNet;
use policy::protocol::PortRange;
use policy::well_known::{INBOUND_PORT, OUTBOUND_PORT, PROXY_PORTS};

use crate::capture::settings::{GID, Settings, UID};

/// One chain of the table, hooked into the kernel's destination nat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub name: &'static str,
    pub hook: Hook,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Packets that arrive from an interface, loopback included.
    Prerouting,
    /// Packets that processes of this namespace send.
    Output,
}

/// Everything in `when` must hold, then `then` happens and the chain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub when: Vec<Match>,
    pub then: PacketVerdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    NotTcp,
    FromLoopback,
    ToLoopback,
    /// To no address of this namespace: the kernel forwards it, or drops it.
    NotForUs,
    Uid(u32),
    Gid(u32),
    /// Inclusive at both ends.
    PortBetween(u16, u16),
    Destination(IpNet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketVerdict {
    /// Leave the packet as it is.
    Return,
    /// To this port of the pod itself.
    Redirect(u16),
}

/// What becomes of packets that the pod forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Pass,
    /// For a kernel that cannot distinguish them from those for the pod.
    Redirected,
}

/// All chains of the table. Pure, so that tests can read it.
#[must_use]
pub(crate) fn plan(settings: &Settings, forwarded: Forwarded) -> Vec<Chain> {
    let output = [
        rule([Match::NotTcp], PacketVerdict::Return),
        rule([Match::ToLoopback], PacketVerdict::Return),
        rule([Match::Uid(UID)], PacketVerdict::Return),
        rule([Match::Gid(GID)], PacketVerdict::Return),
    ]
    .into_iter()
    .chain(ports(&settings.skip_outbound_ports))
    .chain(
        settings
            .skip_outbound_cidrs
            .iter()
            .map(|net| rule([Match::Destination(*net)], PacketVerdict::Return)),
    )
    .chain([rule([], PacketVerdict::Redirect(OUTBOUND_PORT))])
    .collect();

    let passing = match forwarded {
        Forwarded::Pass => Some(rule([Match::NotForUs], PacketVerdict::Return)),
        Forwarded::Redirected => None,
    };
    let prerouting = [
        rule([Match::NotTcp], PacketVerdict::Return),
        rule([Match::FromLoopback], PacketVerdict::Return),
    ]
    .into_iter()
    .chain(passing)
    .chain(PROXY_PORTS.map(|port| rule([Match::PortBetween(port, port)], PacketVerdict::Return)))
    .chain(ports(&settings.skip_inbound_ports))
    .chain([rule([], PacketVerdict::Redirect(INBOUND_PORT))])
    .collect();

    vec![
        Chain {
            name: "output",
            hook: Hook::Output,
            rules: output,
        },
        Chain {
            name: "prerouting",
            hook: Hook::Prerouting,
            rules: prerouting,
        },
    ]
}

fn rule<const N: usize>(when: [Match; N], then: PacketVerdict) -> Rule {
    Rule {
        when: when.to_vec(),
        then,
    }
}

fn ports(ranges: &[PortRange]) -> impl Iterator<Item = Rule> + '_ {
    ranges.iter().map(|range| {
        rule(
            [Match::PortBetween(range.first(), range.last())],
            PacketVerdict::Return,
        )
    })
}

#[cfg(test)]
mod tests;
