//! Reads the lists of endpoints in a batch: their addresses, identities and topology hints, and how
//! near each endpoint is to the own pod.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use policy::health::ready_at;
use policy::name::SpiffeId;
use policy::subset::{PeerPosition, PeerPositions};
use wire::{convert, v1};

use crate::config::apply::egress::{external_of, gateways, outside};
use crate::config::snapshot::Snapshot;
use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::learned::now;
use crate::endpoints::location::{LocalInfo, Location, TopologyHints};
use crate::endpoints::registry::{PodRef, Registry};
use crate::endpoints::set::EndpointSet;

pub(super) fn port_of(field: &str, raw: u32) -> Result<u16, String> {
    convert::port(field, raw).map_err(|error| error.to_string())
}

fn address_of(endpoint: &v1::Endpoint) -> Result<SocketAddr, String> {
    let ip: IpAddr = endpoint
        .ip
        .parse()
        .map_err(|_| format!("{:?} is no address", endpoint.ip))?;
    Ok(SocketAddr::new(ip, port_of("port", endpoint.port)?))
}

/// Where a list has a pod of the mesh, also by an identity that cannot be read.
pub(super) fn meshed_address(endpoint: &v1::Endpoint) -> Option<SocketAddr> {
    let meshed = !endpoint.identity.is_empty();
    meshed.then(|| address_of(endpoint).ok()).flatten()
}

pub(super) fn endpoint_of(
    endpoint: &v1::Endpoint,
    registry: &Registry,
) -> Result<Arc<Endpoint>, String> {
    let addr = address_of(endpoint)?;
    let identity = match endpoint.identity.as_str() {
        "" => None,
        id => {
            let ip = addr.ip();
            Some(SpiffeId::try_from(id).map_err(|error| format!("identity of {ip}: {error}"))?)
        }
    };
    let pod = match endpoint.pod.as_str() {
        "" => String::new(),
        pod => format!("{}/{pod}", endpoint.namespace),
    };
    let pod = PodRef {
        name: &pod,
        uid: &endpoint.pod_uid,
    };
    let at = registry.at(addr, identity, pod, endpoint.opaque);
    at.runs_at(Location::new(&endpoint.zone, &endpoint.node));
    Ok(at)
}

/// Seconds since 1970.
pub(super) fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Which of its workload's proxies the own pod's one is.
pub(super) fn positions_of(message: v1::Place) -> Result<PeerPositions, String> {
    let read = |index: u32, peers: u32| {
        let read = PeerPosition { index, peers };
        let error = || format!("{index} is no place among {peers} proxies");
        Some(read).filter(|_| index < peers).ok_or_else(error)
    };
    Ok(PeerPositions {
        all: read(message.index, message.peers)?,
        zone: read(message.zone_index, message.zone_peers)?,
    })
}

impl Snapshot {
    /// From where the own pod sees endpoints.
    pub(super) fn local_info(&self) -> LocalInfo {
        let own = self.workload.as_ref();
        LocalInfo {
            location: own.map_or_else(Location::default, |own| own.location),
            positions: self.positions,
        }
    }

    /// Lists that came while the own pod saw them from there are put in order anew.
    pub(super) fn look_from(&mut self, before: LocalInfo) {
        let own = self.local_info();
        if own == before {
            return;
        }
        for set in self.endpoints.values_mut() {
            *set = Arc::new(set.with(set.endpoints.clone()).seen_from(own));
        }
    }

    pub(super) fn set_endpoints(
        &mut self,
        name: String,
        sent: &v1::Endpoints,
        registry: &Registry,
    ) -> Result<(), String> {
        let list = &sent.endpoints;
        let read = list.iter().map(|endpoint| endpoint_of(endpoint, registry));
        let endpoints = read.collect::<Result<Vec<_>, String>>().inspect_err(|_| {
            let meshed: HashSet<SocketAddr> = list.iter().filter_map(meshed_address).collect();
            for addr in &meshed {
                registry.note_meshed(*addr, true);
            }
            self.leave_out_plaintext(&name, &meshed);
        })?;
        let external = external_of(sent)?;
        let to_gateway = wire::names::is_handing_over(&name)
            || external
                .as_ref()
                .is_some_and(|target| target.gateway.is_some());
        let is_outside =
            !to_gateway && (external.is_some() || name.starts_with(wire::names::EXTERNAL));
        let former = self.endpoints.get(&*name);
        if former.is_some_and(|former| former.external != external) {
            // Open connections look again whether they may go on.
            self.policy_revision += 1;
        }
        let throttle = former.map_or_else(Arc::default, |former| Arc::clone(&former.throttle));
        let former: HashSet<SocketAddr> = former
            .iter()
            .flat_map(|former| former.endpoints.iter().map(|endpoint| endpoint.addr))
            .collect();
        let (now, unix) = (now(), unix());
        for (endpoint, message) in endpoints.iter().zip(list) {
            if !is_outside {
                registry.note_meshed(endpoint.addr, endpoint.meshed());
            }
            let since = if former.is_empty() {
                ready_at(now, unix, message.ready_since)
            } else {
                // Among others that were there it is new now, whatever the clocks.
                (!former.contains(&endpoint.addr)).then_some(now)
            };
            if let Some(since) = since {
                endpoint.joined(since);
            }
        }
        let hinted = endpoints.iter().zip(list).map(|(endpoint, message)| {
            let (zones, nodes) = (&message.for_zones[..], &message.for_nodes[..]);
            (endpoint.addr, zones, nodes)
        });
        let hints = Arc::new(TopologyHints::of(hinted));
        let budget = registry.budget(&name);
        let endpoints = if is_outside {
            outside(endpoints, registry)
        } else if to_gateway {
            gateways(endpoints)
        } else {
            endpoints
        };
        let set = EndpointSet::new(endpoints, budget, throttle, registry.circuits(&name));
        let locality = wire::convert::locality(sent.locality).unwrap_or_default();
        let set = set
            .hinting(hints)
            .preferring(locality)
            .of_interchangeable(sent.alike)
            .standing_for(external);
        let set = set.seen_from(self.local_info());
        self.endpoints.insert(name.into(), Arc::new(set));
        Ok(())
    }

    /// Takes out of a list that stays whatever it would call in plaintext and is meshed by the
    /// refused one.
    fn leave_out_plaintext(&mut self, name: &str, meshed: &HashSet<SocketAddr>) {
        let Some(current) = self.endpoints.get(name) else {
            return;
        };
        let stays =
            |endpoint: &&Arc<Endpoint>| endpoint.meshed() || !meshed.contains(&endpoint.addr);
        let endpoints: Vec<_> = current.endpoints.iter().filter(stays).cloned().collect();
        if endpoints.len() != current.endpoints.len() {
            // What is held is not what the controller has sent under this version.
            let set = current.with(endpoints);
            self.versions.remove(name);
            self.endpoints.insert(name.into(), Arc::new(set));
        }
    }
}
