//! Which backend and which endpoint a tenant keeps.
//!
//! Both are chosen by the highest of hashes over the tenant's key and the candidate, the
//! backend's weighed by its weight. So nothing has to be remembered: proxies agree, a
//! restart changes nothing, and when a weight grows, tenants move to that backend and none
//! moves elsewhere or back. An endpoint that goes takes its own tenants along and no
//! others; while it rests they use their next one, and return.
//!
//! In use: [`Key::of`] once per request; [`backend`] instead of [`crate::route::choose`];
//! [`endpoint`] instead of [`crate::balance::choose`], with [`seed`] made once per
//! endpoint, so that one request costs an addition and a few shifts per endpoint.

use std::net::{IpAddr, SocketAddr};

use crate::balance::unit;
use crate::hashing::{hash, mix};
use crate::route::Backend;

/// A tenant, as a hash: of a header's or cookie's value, or of the calling pod's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self(hash(value))
    }
}

/// The backend of a tenant; `None` when no backend has a weight.
#[must_use]
pub fn backend(backends: &[Backend], key: Key) -> Option<&Backend> {
    let point = |backend: &Backend| {
        let name =
            mix(hash(backend.service.namespace.as_bytes())) ^ hash(backend.service.name.as_bytes());
        // The first of arrivals at rates that are the weights.
        -(1.0 - unit(mix(key.0 ^ name))).ln() / f64::from(backend.weight)
    };
    let weighed = backends.iter().filter(|backend| backend.weight > 0);
    weighed.min_by(|a, b| point(a).total_cmp(&point(b)))
}

/// What an endpoint contributes to its tenants' hashes.
#[must_use]
pub fn seed(addr: SocketAddr) -> u64 {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    };
    mix(ip ^ u64::from(addr.port()))
}

/// The endpoint of a tenant, among those of `len` that are `usable`: they work, and were
/// not tried.
#[must_use]
pub fn endpoint(
    key: Key,
    len: usize,
    seed: impl Fn(usize) -> u64,
    usable: impl Fn(usize) -> bool,
) -> Option<usize> {
    (0..len)
        .filter(|index| usable(*index))
        .max_by_key(|index| mix(key.0 ^ seed(*index)))
}

#[cfg(test)]
mod tests;
