//! Serves the pages of the admin port beyond `/live`, `/ready` and `/metrics`.
//!
//! The kubelet may call probes and hooks. Pages that show configuration or change state are for the
//! pod itself and answer only loopback.
//!
//! Imports `config`, `endpoints`, `probe`, `proxy` and `telemetry`.
//!
//! Claims: calls-59, observe-106

mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use runtime::admin::{Request, Response, json, text};
use serde_json::{Map, Value};

use crate::config::snapshot::Summary;
use crate::probe::Probes;
use crate::proxy::Proxy;
use crate::telemetry::startup::milliseconds;

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

    pub(crate) async fn answer(self, request: Request, peer: SocketAddr) -> Response {
        let path = request.uri().path();
        let probed = self.probes.answer(request.method(), path);
        if let Some(answer) = Box::pin(self.proxy.clients.beside(probed)).await {
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
            (&Method::GET, path) => match traffic::requested_services(path) {
                Some(services) => {
                    let current = self.proxy.config.snapshot();
                    json(StatusCode::OK, traffic::page(&current, services))
                }
                None => text(StatusCode::NOT_FOUND, "no such page\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    /// Names and versions of everything held, and how the proxy started.
    fn config(&self) -> String {
        let (own, draining) = (&self.proxy.own, self.proxy.drain.is_draining());
        let current = Summary::of(&self.proxy.config.snapshot(), &own.identity, draining);
        let resources: Map<String, Value> = current
            .resources
            .into_iter()
            .map(|(name, version)| (name, version.into()))
            .collect();
        let startup = self.proxy.telemetry.metrics.startup.steps();
        let startup = startup.into_iter().map(|(step, took)| {
            serde_json::json!({ "step": step.name(), "milliseconds": milliseconds(took) })
        });
        let startup: Vec<Value> = startup.collect();
        let page = serde_json::json!({
            "identity": current.identity,
            "enforcement": current.enforcement,
            "mtls": current.mtls,
            "draining": current.draining,
            "startup": startup,
            "resources": resources,
        });
        format!("{page:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::time::{Duration, SystemTime};

    use futures::future::join_all;
    use identity::Roots;
    use identity::authority::{ROOT_LIFE, Root};
    use identity::tls::CertHandle;
    use policy::access_log::AccessLog;
    use policy::name::SpiffeId;
    use policy::origin::Origin;
    use policy::route::{Match, Rule};
    use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, Overload, RateLimit};
    use policy::traffic::pod::{GuardPort, PodGuard};
    use policy::traffic::{Scoped, Sources};
    use policy::well_known::ADMIN_PORT;
    use prometheus_client::registry::Registry;
    use wire::v1;

    use super::*;
    use crate::net::budget::Budget;
    use crate::settings::Own;
    use crate::telemetry::Telemetry;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::startup::StartupStep;

    fn pages() -> Pages {
        let web = SpiffeId::of("cluster.local", "shop", "web").unwrap();
        let root = Root::generate(SystemTime::now(), ROOT_LIFE).unwrap();
        let roots = Roots::new(&web, vec![root.certificate().clone()]).unwrap();
        let ip = IpAddr::from([10, 0, 0, 1]);
        let own = Own::new("shop".to_owned(), "web-1".to_owned(), web, vec![ip]).unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        let telemetry = Telemetry::new(metrics, AccessLog::OFF);
        let budget = Budget::new(1 << 20);
        let proxy = Proxy::new(own, telemetry, CertHandle::empty(), roots, &budget);
        Pages::new(Arc::new(proxy), None, None).unwrap()
    }

    #[tokio::test]
    async fn proxy_configuration_is_shown_to_own_pod_only() {
        let pages = pages();
        let ask = async |method: Method, path: &str, peer: &str| {
            let mut request = Request::default();
            *request.method_mut() = method;
            *request.uri_mut() = path.parse().unwrap();
            let answer = pages.clone().answer(request, peer.parse().unwrap()).await;
            answer.status().as_u16()
        };
        let (own, other) = ("127.0.0.1:4000", "10.0.0.9:4000");
        for (path, status) in [
            ("/traffic", 200),
            ("/traffic/shop/api", 200),
            ("/traffics", 404),
            ("/config", 200),
        ] {
            assert_eq!(ask(Method::GET, path, own).await, status, "{path}");
            assert_eq!(ask(Method::GET, path, other).await, 404, "{path}");
            assert_eq!(ask(Method::POST, path, own).await, 404, "{path}");
        }
    }

    #[test]
    fn config_page_shows_the_steps_of_the_start() {
        let pages = pages();
        let startup = &pages.proxy.telemetry.metrics.startup;
        startup.reached(StartupStep::Settings);
        startup.reached(StartupStep::Ready);
        let page: Value = serde_json::from_str(&pages.config()).unwrap();
        let steps: Vec<&Value> = page["startup"].as_array().unwrap().iter().collect();
        let names: Vec<&Value> = steps.iter().map(|step| &step["step"]).collect();
        assert_eq!(names, ["settings", "ready"]);
        assert!(steps.iter().all(|step| step["milliseconds"].is_u64()));
    }

    /// The pod's application may have a port of that number in a Service; it is not this one.
    fn limited_to_one(port: u16) -> v1::Resource {
        let origin = Origin::new("TrafficPolicy", "shop", "p");
        let limit = RateLimit {
            name: "one".into(),
            requests: 1,
            per: Duration::from_secs(3600),
            burst: 1,
            key: LimitKey::None,
            scope: LimitScope::Instance,
            mode: LimitMode::Enforce,
        };
        let mut guard_port = GuardPort::default();
        guard_port.rate_limits.rules.push(Rule {
            origin: origin.rule("one"),
            when: Match::Always,
            then: Some(Scoped {
                sources: Sources::Everyone,
                section: Arc::new(limit),
            }),
        });
        guard_port.overload.rules.push(Rule {
            origin,
            when: Match::Always,
            then: Some(Overload {
                max_concurrency: Some(1),
                ..Overload::DEFAULT
            }),
        });
        let guard = PodGuard {
            ports: BTreeMap::from([(port, guard_port)]),
            read_only: None,
        };
        wire::version::stamp(v1::Resource {
            name: wire::names::GUARD.to_owned(),
            version: String::new(),
            content: Some(v1::resource::Content::Guard((&guard).into())),
        })
    }

    /// Probes of the kubelet and scrapes come here, which no caller may use up.
    #[tokio::test]
    async fn admin_port_is_exempt_from_limits_and_overload() {
        let pages = pages();
        let nacks = pages.proxy.config.apply(v1::Batch {
            id: 1,
            set: vec![limited_to_one(ADMIN_PORT)],
            ..v1::Batch::default()
        });
        assert!(nacks.is_empty(), "{nacks:?}");
        let current = pages.proxy.config.snapshot();
        let guard = current.guard.as_ref().unwrap();
        assert!(guard.port(ADMIN_PORT).is_some(), "the control: it is there");
        // At once and one after the other, more than either would let pass.
        for _ in 0..3 {
            let asks = (0..4).map(|_| {
                let mut request = Request::default();
                *request.uri_mut() = "/config".parse().unwrap();
                let peer = "127.0.0.1:4000".parse().unwrap();
                pages.clone().answer(request, peer)
            });
            for answer in join_all(asks).await {
                assert_eq!(answer.status(), StatusCode::OK);
            }
        }
    }
}
