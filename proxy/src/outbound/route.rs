//! The route of one call: its backend, the rule that chose it, and the endpoints that serve it.
//!
//! Decided once per call, by `routing`, before anything is sent. What the call is counted by
//! follows from the same value, so that a table of traffic cannot disagree with the traffic.
//! Attempts choose among the endpoints that it names and never another backend.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use policy::egress::{ExternalTarget, OriginateTls};
use policy::http_match::RequestFacts;
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::release::{ReleaseSet, service_of};
use policy::route::edits::Actions;

use crate::config::snapshot::Snapshot;
use crate::endpoints::endpoint::Endpoint;
use crate::failure::Failure;
use crate::mesh::protocol::HandedOver;
use crate::outbound::call_policy::{CallPolicy, Names};
use crate::outbound::choice::{Choice, RoutedEndpoints};
use crate::proxy::Proxy;
use crate::telemetry::Telemetry;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CellKey};
use crate::telemetry::labels::Security;

/// Where one call goes.
pub(super) struct Route {
    pub(super) service: Arc<str>,
    /// The one that was called.
    pub(super) port: u16,
    pub(super) backend: Arc<str>,
    /// Of the backend, whose policies and breaker are those of this port.
    pub(super) backend_port: u16,
    /// What chose the backend, where it is not the Service itself.
    pub(super) rule: Option<Origin>,
    pub(super) choice: Choice,
    /// Its policies, where there is one.
    pub(super) policy: Option<Arc<CallPolicy>>,
    /// The cookie for its caller's next call, so that it goes the same way.
    pub(super) cookie: Option<Box<HeaderValue>>,
    /// Its request asked to go there, and its caller learns that.
    pub(super) overridden: bool,
    /// What the rule that chose the backend does with the call.
    pub(super) actions: Option<Arc<Actions>>,
    /// Headers by which a page of another origin may read the response.
    pub(super) cors: Option<Box<HeaderMap>>,
    /// Of a call to an address outside the mesh.
    pub(super) external: Option<Box<External>>,
    /// What the port of the called Service is declared to carry, where its client may speak
    /// another version of HTTP: it came in at a listener.
    pub(super) speaks: Option<Protocol>,
}

/// A call to an address outside the mesh.
#[derive(Debug)]
pub(super) struct External {
    /// What it is counted by: the object that gives it, else its host or address.
    pub(super) remote: Arc<str>,
    /// TLS that this proxy begins, and the name that the server has to prove.
    pub(super) tls: Option<(Arc<OriginateTls>, Option<Arc<str>>)>,
    /// What the Gateway gets beside it that lets it out.
    pub(super) handed: Option<HandedOver>,
}

/// How a call is handed over to a Gateway.
#[derive(Debug)]
pub(super) struct Handing {
    pub(super) over: HandedOver,
    /// That the object has.
    pub(super) port: u16,
    /// The host that a request names from here on.
    pub(super) host: Option<Arc<str>>,
}

/// What a request needs where it leaves the mesh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving<'a> {
    /// The host that it names from here on.
    pub(super) host: Option<&'a str>,
    /// TLS that this proxy begins, and the name that the server has to prove.
    pub(super) tls: Option<(&'a OriginateTls, Option<&'a str>)>,
}

/// Whether calls to these endpoints may leave the mesh, where they are of a host outside it. `name`:
/// of their resource.
pub(super) fn may_leave(snapshot: &Snapshot, name: Option<&str>) -> Result<(), Failure> {
    let set = name.and_then(|name| snapshot.endpoints_of(name));
    let target = set.and_then(|set| set.external.as_ref());
    let Some(target) = target.filter(|target| target.denied) else {
        return Ok(());
    };
    Err(Failure::Refused {
        reason: Reason::EgressDenied,
        by: Some(target.object.clone()),
        detail: format!(
            "spec.sources of {} does not list the service account of this pod; list it there",
            target.object
        )
        .into(),
    })
}

/// Whether calls to these endpoints still leave by a Gateway, or still do not. `name`: as above.
pub(super) fn leaves_alike(
    snapshot: &Snapshot,
    name: Option<&str>,
    handed: bool,
) -> Result<(), Failure> {
    let set = name.and_then(|name| snapshot.endpoints_of(name));
    let target = set.and_then(|set| set.external.as_ref());
    match target {
        Some(target) if target.gateway.is_some() != handed => Err(Failure::refused(
            Reason::EgressDenied,
            "spec.gateway of the ExternalService behind this Service is another one by now; connect \
             again",
        )),
        _ => Ok(()),
    }
}

impl Route {
    /// To the endpoints of a Service's port, without anything else.
    pub(super) fn to(service: &Arc<str>, port: u16, choice: Choice) -> Self {
        Self {
            service: Arc::clone(service),
            port,
            backend: Arc::clone(service),
            backend_port: port,
            rule: None,
            choice,
            policy: None,
            cookie: None,
            overridden: false,
            actions: None,
            cors: None,
            external: None,
            speaks: None,
        }
    }

    /// The callee, before it is known by which pod.
    pub(super) fn call_ends(&self) -> CallEnds {
        if let Some(external) = &self.external {
            return CallEnds::External {
                port: self.port,
                remote: Arc::clone(&external.remote),
                security: match external.handed {
                    Some(_) => Security::none,
                    None => Security::plaintext,
                },
            };
        }
        CallEnds::Outbound {
            service: Arc::clone(&self.service),
            port: self.port,
            backend: Arc::clone(&self.backend),
            rule: self.rule.clone(),
            pod: Arc::default(),
            security: Security::none,
        }
    }

    /// The Service and port to which a rule leads, if that is not the one that was called.
    /// One without a backend leads nowhere, and the sets of a release are parts of their Service.
    pub(super) fn led_to(&self) -> Option<(Arc<str>, u16)> {
        let is_called =
            service_of(&self.backend) == &*self.service && self.backend_port == self.port;
        let elsewhere = !self.backend.is_empty() && !is_called;
        elsewhere.then(|| (Arc::clone(&self.backend), self.backend_port))
    }

    /// The host outside the mesh that the endpoints are of, where its Service stands for one.
    fn stands_for(&self) -> Option<&Arc<ExternalTarget>> {
        self.choice.set()?.external.as_ref()
    }

    /// What a request needs, sent to an endpoint without a proxy; `None`: nothing.
    pub(super) fn leaving(&self) -> Option<Leaving<'_>> {
        if let Some(external) = &self.external {
            let (tls, name) = external.tls.as_ref()?;
            return Some(Leaving {
                host: None,
                tls: Some((&**tls, name.as_deref())),
            });
        }
        let target = self.stands_for()?;
        let tls = target.tls.as_deref().map(|tls| {
            let name = tls.server_name.as_deref().unwrap_or(&*target.host);
            (tls, Some(name))
        });
        Some(Leaving {
            host: Some(&*target.host),
            tls,
        })
    }

    /// How it is handed over, where it leaves the mesh by a Gateway. It goes there in no other way.
    pub(super) fn handing(&self) -> Option<Handing> {
        if let Some(external) = &self.external {
            return Some(Handing {
                over: external.handed.clone()?,
                port: self.port,
                host: None,
            });
        }
        let target = self.stands_for()?;
        target.gateway.as_ref()?;
        Some(Handing {
            over: HandedOver {
                object: Arc::clone(target.object.label()),
                to: Arc::clone(&target.host),
            },
            port: self.backend_port,
            host: Some(Arc::clone(&target.host)),
        })
    }

    /// Whether it leaves the mesh by a Gateway.
    pub(super) fn hands_over(&self) -> bool {
        match &self.external {
            Some(external) => external.handed.is_some(),
            None => self
                .stands_for()
                .is_some_and(|target| target.gateway.is_some()),
        }
    }

    /// The failure of a call that leaves by a Gateway, at what is none of its pods.
    pub(super) fn no_gateway() -> Failure {
        let detail =
            "calls of this ExternalService leave by a Gateway, and this is none of its pods";
        Failure::refused(Reason::NoEndpoint, detail)
    }

    /// Whether it goes to a proxy that alone knows which policies hold: its caller named no
    /// Service, but a pod by its own address.
    pub(super) fn leaves_policies_to_peer(&self) -> bool {
        self.service.is_empty()
            && matches!(&self.choice, Choice::One(endpoint) if endpoint.meshed())
    }

    /// To any endpoint of the Service, where the client has chosen one of those that are
    /// interchangeable, with the address of that one.
    pub(super) fn to_others(&self) -> Option<(SocketAddr, Self)> {
        let (chosen, others) = self.choice.others()?;
        let route = Self {
            backend: Arc::clone(&self.backend),
            backend_port: self.backend_port,
            policy: self.policy.clone(),
            ..Self::to(&self.service, self.port, Choice::Any(others.clone()))
        };
        Some((chosen, route))
    }

    /// Where calls that go this way to `endpoint` are counted.
    pub(super) fn cell(
        &self,
        telemetry: &Telemetry,
        endpoint: &Endpoint,
        protocol: Protocol,
    ) -> Arc<CallCounters> {
        if let Some(cell) = endpoint.cells.find(|key| self.leads(key, protocol)) {
            return cell;
        }
        let mut call_ends = self.call_ends();
        match &mut call_ends {
            CallEnds::Outbound { pod, security, .. } => {
                *pod = Arc::clone(&endpoint.pod);
                *security = Security::of(endpoint.meshed());
            }
            CallEnds::External { security, .. } => *security = Security::of(endpoint.meshed()),
            _ => {}
        }
        let cell = telemetry.cell(call_ends, protocol);
        if self.leads(cell.key(), protocol) {
            endpoint.cells.keep(&cell);
        }
        cell
    }

    /// Whether calls that go this way to an endpoint are those of `key`.
    fn leads(&self, key: &CellKey, spoken: Protocol) -> bool {
        match &key.call_ends {
            CallEnds::Outbound {
                service,
                port,
                backend,
                rule,
                ..
            } => {
                key.protocol == spoken
                    && *port == self.port
                    && *service == self.service
                    && *backend == self.backend
                    && *rule == self.rule
                    && self.external.is_none()
            }
            CallEnds::External {
                port,
                remote,
                security,
            } => {
                let external = self.external.as_ref();
                let is_handed = *security == Security::mtls;
                key.protocol == spoken
                    && *port == self.port
                    && external.is_some_and(|external| {
                        external.remote == *remote && external.handed.is_some() == is_handed
                    })
            }
            _ => false,
        }
    }

    /// To the endpoints of another Service than the one that was called, as they are now.
    pub(super) fn elsewhere(
        &self,
        proxy: &Proxy,
        (service, port): (&ServiceId, u16),
        facts: Option<&RequestFacts<'_>>,
    ) -> Self {
        let snapshot = proxy.config.snapshot();
        let name: Arc<str> = wire::names::endpoints(&service.namespace, &service.name, port).into();
        // A set of a release has the policies of its Service, and a breaker of its own.
        let set = ReleaseSet::parse(&service.name);
        let root = set.map(|(whole, _)| wire::names::endpoints(&service.namespace, whole, port));
        let names = Names {
            root: root.as_deref().unwrap_or(&name),
            serving: root.is_some().then_some(&*name),
        };
        let choice = Choice::Any(RoutedEndpoints::of(&snapshot, &name));
        Self {
            backend: service.to_string().into(),
            backend_port: port,
            policy: CallPolicy::of(&snapshot.policies, names, facts, None),
            ..Self::to(&self.service, self.port, choice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::set::EndpointSet;

    fn route(backend: &str, backend_port: u16) -> Route {
        let among = RoutedEndpoints::of_set(EndpointSet::default());
        Route {
            backend: backend.into(),
            backend_port,
            ..Route::to(&"shop/api".into(), 80, Choice::Any(among))
        }
    }

    /// What a pod that may only read may open is decided by that.
    #[test]
    fn rule_leads_elsewhere_by_service_or_port() {
        for (backend, port, led) in [
            ("shop/api", 80, None),
            ("shop/api@stable", 80, None),
            ("shop/api", 81, Some("shop/api:81")),
            ("shop/v2", 80, Some("shop/v2:80")),
            ("", 80, None),
        ] {
            let found = route(backend, port).led_to();
            let found = found.map(|(service, port)| format!("{service}:{port}"));
            assert_eq!(found.as_deref(), led, "{backend}:{port}");
        }
    }
}
