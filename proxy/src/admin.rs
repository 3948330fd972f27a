//! What the admin port answers beyond `/live`, `/ready` and `/metrics`.
//!
//! Probes and hooks are for the kubelet; what shows configuration or changes
//! state is for the pod itself and answers loopback only.
//!
//! Imports `config`, `probe` and `proxy`.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use runtime::admin::{Answer, Request, json, text};
use serde_json::{Map, Value};

use crate::config::summary::Summary;
use crate::probe::Probes;
use crate::proxy::Proxy;

#[derive(Clone, Debug)]
pub(crate) struct Pages {
    proxy: Arc<Proxy>,
    probes: Arc<Probes>,
}

impl Pages {
    /// # Errors
    /// When the injected probes or hooks cannot be read.
    pub(crate) fn new(
        proxy: Arc<Proxy>,
        probes: Option<&str>,
        hooks: Option<&str>,
    ) -> anyhow::Result<Self> {
        let probes = Probes::parse(
            probes.unwrap_or_default(),
            hooks.unwrap_or_default(),
            proxy.own.ip,
        )?;
        Ok(Self {
            proxy,
            probes: Arc::new(probes),
        })
    }

    pub(crate) async fn answer(self, request: Request, peer: SocketAddr) -> Answer {
        let path = request.uri().path();
        if let Some(answer) = self.probes.answer(request.method(), path).await {
            return answer;
        }
        let local = peer.ip().to_canonical().is_loopback();
        match (request.method(), path) {
            _ if !local => text(StatusCode::NOT_FOUND, "no such page\n"),
            (&Method::POST, "/drain") => {
                self.proxy.leave();
                text(StatusCode::OK, "draining\n")
            }
            (&Method::GET, "/config") => json(StatusCode::OK, self.config()),
            (&Method::GET, "/certificate") => match self.proxy.peers.tls().chain() {
                Some(chain) => text(StatusCode::OK, chain),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "no certificate yet\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    /// Names and versions of everything held.
    fn config(&self) -> String {
        let (own, draining) = (&self.proxy.own, self.proxy.drain.is_draining());
        let held = Summary::of(&self.proxy.config.snapshot(), &own.identity, draining);
        let resources: Map<String, Value> = held
            .resources
            .into_iter()
            .map(|(name, version)| (name, version.into()))
            .collect();
        let page = serde_json::json!({
            "identity": held.identity,
            "enforcement": held.enforcement,
            "mtls": held.mtls,
            "draining": held.draining,
            "resources": resources,
        });
        format!("{page:#}\n")
    }
}
