//! Pages of the controller's admin port: which proxy acknowledged which version, beside probes and
//! metrics.
//!
//! May import `observe`.

use std::net::IpAddr;

use http::{Method, StatusCode};
use runtime::admin;

use crate::observe::propagation::Acks;

/// Not for every client in the cluster: the record names the objects of all namespaces, so only a
/// user who may enter this pod sees it.
pub(crate) fn page(request: &admin::Request, peer: IpAddr, acks: &Acks) -> admin::Response {
    if request.uri().path() != "/acks" || !peer.to_canonical().is_loopback() {
        return admin::text(StatusCode::NOT_FOUND, "no such page\n");
    }
    if request.method() != Method::GET {
        return admin::text(StatusCode::METHOD_NOT_ALLOWED, "GET\n");
    }
    match acks.json() {
        Ok(body) => admin::json(StatusCode::OK, body),
        Err(error) => admin::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_acknowledgements_is_shown_on_loopback_only() {
        let acks = Acks::default();
        let status = |peer: &str, path: &str| {
            let request = http::Request::get(path).body(Default::default()).unwrap();
            page(&request, peer.parse().unwrap(), &acks).status()
        };
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(status(peer, "/acks"), StatusCode::OK, "{peer}");
            assert_eq!(status(peer, "/other"), StatusCode::NOT_FOUND, "{peer}");
        }
        for peer in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"] {
            assert_eq!(status(peer, "/acks"), StatusCode::NOT_FOUND, "{peer}");
        }
    }
}
