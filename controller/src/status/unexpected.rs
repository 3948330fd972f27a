//! Events for a Service's author: callers send a protocol that the port does not declare.
//!
//! The caller's proxy resets what begins no request where HTTP is declared, and reports it as
//! TLS or bytes that failed as a bad request. Reports of called pods are not looked at: their
//! callers may be anything, while a caller's own report comes from a pod with a certificate. So
//! a port scanner outside the mesh makes no Event.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crds::labels::OPAQUE_PORTS;
use model::compiled::Compiled;
use model::protocols::{Declares, ServiceClaim, claims, declaration};
use model::world::ObjectKey;
use policy::name::Kind;
use policy::reason::Reason;
use tokio::time::{Instant, sleep};
use wire::v1;

use super::conditions::api_version;
use crate::apiserver::events::{About, Event, EventRecorder, EventType};
use crate::latest_model::LatestModel;
use crate::observe::reports::{INTERVAL, PodInterval, Reports, SETTLED, interval_of};

/// Between two looks. Each interval is looked at once, when it has settled.
const PAUSE: Duration = Duration::from_secs(INTERVAL);
/// Intervals that one look catches up on. What is older is not reported.
const MAX_INTERVALS: u64 = 12;
/// An Event about a port is not repeated for this time.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// What was called when something else than HTTP arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Called {
    /// A Service, and its port.
    Service(ObjectKey, u16),
    /// A pod by its own address, as clients of a headless Service do, and the pod's port.
    Pod(ObjectKey, u16),
}

/// At what something else than HTTP arrived, and whether TLS was among it.
type Arrived = BTreeMap<Called, bool>;

/// Records what arrives at ports that carry something else, until dropped. Only the Lease
/// holder runs this.
pub(crate) async fn report(reports: Reports, latest: LatestModel, events: EventRecorder) {
    let mut reported = Reported::default();
    let mut next = settled(SystemTime::now());
    loop {
        sleep(PAUSE).await;
        let end = settled(SystemTime::now());
        let mut arrived = Arrived::new();
        for interval in next.clamp(end.saturating_sub(MAX_INTERVALS), end)..end {
            note(&reports.of_interval(interval), &mut arrived);
        }
        next = end;
        let compiled = latest.borrow().clone();
        let Some(compiled) = compiled else { continue };
        for event in reported.news(&compiled, arrived, Instant::now()) {
            events.record(event);
        }
    }
}

/// The first interval that has not settled.
fn settled(now: SystemTime) -> u64 {
    interval_of(now.checked_sub(SETTLED).unwrap_or(now))
}

fn note(pods: &[PodInterval], arrived: &mut Arrived) {
    for edge in pods.iter().flat_map(|pod| &*pod.edges) {
        let key = &edge.key;
        let is_tls = key.protocol == v1::Protocol::Tls;
        let named = edge.detail.as_ref().and_then(|it| it.named.as_ref());
        let mut reasons = named.into_iter().flat_map(|named| &*named.reasons);
        let refused =
            reasons.any(|(reason, calls)| **reason == *Reason::BadRequest.as_str() && *calls > 0);
        let called = match (&key.service, &key.pod) {
            (Some(service), _) => Some(Called::Service(service.clone(), key.port)),
            (None, Some(pod)) => Some(Called::Pod(pod.clone(), key.port)),
            (None, None) => None,
        };
        if let Some(called) = called
            && key.client
            && refused
            && (is_tls || key.protocol == v1::Protocol::Opaque)
        {
            *arrived.entry(called).or_default() |= is_tls;
        }
    }
}

impl Called {
    /// The Services whose port that is, and which.
    fn ports(self, compiled: &Compiled) -> Vec<(ObjectKey, u16)> {
        let (pod, own) = match self {
            Self::Service(service, port) => return vec![(service, port)],
            Self::Pod(pod, own) => (pod, own),
        };
        let entry = compiled.model.index.pods.get(&pod);
        let serves = entry.into_iter().flat_map(|entry| &entry.serves);
        let there = serves.filter(|(_, _, port)| *port == own);
        there
            .map(|(service, number, _)| (service.clone(), *number))
            .collect()
    }
}

/// The ports that Events were recorded about, and when.
#[derive(Debug, Default)]
struct Reported(BTreeMap<(ObjectKey, u16), Instant>);

impl Reported {
    fn news(&mut self, compiled: &Compiled, arrived: Arrived, now: Instant) -> Vec<Event> {
        self.0.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        let mut events = Vec::new();
        let mut ports = BTreeMap::<(ObjectKey, u16), bool>::new();
        for (called, is_tls) in arrived {
            for port in called.ports(compiled) {
                *ports.entry(port).or_default() |= is_tls;
            }
        }
        for (key, is_tls) in ports {
            if self.0.contains_key(&key) {
                continue;
            }
            if let Some(event) = about(compiled, &key.0, key.1, is_tls) {
                self.0.insert(key, now);
                events.push(event);
            }
        }
        events
    }
}

/// The Event about a port, where it is declared to carry HTTP.
fn about(compiled: &Compiled, service: &ObjectKey, port: u16, is_tls: bool) -> Option<Event> {
    let entry = compiled.model.index.services.get(service)?;
    if !entry.ports.get(&port)?.protocol.is_http() {
        return None;
    }
    let (what, fitting) = if is_tls {
        ("TLS", "https or tcp")
    } else {
        ("something else than HTTP", "tcp")
    };
    let own = declaration(&entry.facts, port);
    let declared = own.map_or_else(String::new, |(_, by)| format!(" {}", words(by)));
    let of_own = own
        .filter(|(protocol, _)| protocol.is_http())
        .map(|(_, by)| way_out(by, "it", fitting));
    let of_other = decider(compiled, service, port).map(|(other, pods_port)| {
        format!(
            "port {} {} of Service {} decides for container port {pods_port}: {}, or add \
             {pods_port} to annotation {OPAQUE_PORTS} of the pods",
            other.number,
            words(other.by),
            other.service,
            way_out(other.by, "that one", fitting),
        )
    });
    let ways_out: Vec<String> = of_own.into_iter().chain(of_other).collect();
    // Its last endpoint has gone since, and with it what another Service declared.
    if ways_out.is_empty() {
        return None;
    }
    Some(Event {
        about: About {
            api_version: api_version(Kind::Service),
            kind: Kind::Service.as_str().to_owned(),
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            uid: entry.facts.uid.to_string(),
        },
        event_type: EventType::Warning,
        reason: "UnexpectedProtocol",
        action: "Observe",
        text: format!(
            "{what} on port {port}{declared} of Service {service}: {}",
            ways_out.join("; and ")
        ),
    })
}

/// The other Service port by which the pods of this one carry HTTP, and the pods' own port.
fn decider<'a>(
    compiled: &'a Compiled,
    service: &ObjectKey,
    port: u16,
) -> Option<(ServiceClaim<'a>, u16)> {
    let index = &compiled.model.index;
    let candidates = &index.services.get(service)?.ports.get(&port)?.candidates;
    let first = candidates.iter().find_map(|candidate| {
        let endpoint = &candidate.endpoint;
        let pod = index.pods.get(endpoint.pod.as_ref()?)?;
        let claims = claims(&index.world, &pod.serves, endpoint.port);
        let first = claims.into_iter().next()?;
        first.protocol.is_http().then_some((first, endpoint.port))
    });
    first.filter(|(first, _)| (first.service, first.number) != (service, port))
}

fn words(by: Declares<'_>) -> String {
    match by {
        Declares::PortName(name) => format!("named {name}"),
        Declares::AppProtocol(value) => format!("with appProtocol {value}"),
        Declares::Annotation => format!("in annotation {OPAQUE_PORTS}"),
    }
}

/// What has to be changed where that declares HTTP.
fn way_out(by: Declares<'_>, it: &str, fitting: &str) -> String {
    match by {
        Declares::AppProtocol(_) => format!("set appProtocol {fitting}"),
        Declares::PortName(_) | Declares::Annotation => {
            format!("name {it} {fitting}, or set appProtocol")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Defaults, Model};

    use super::*;
    use crate::metrics::ReportMetrics;
    use crate::observe::reports::Reporter;
    use crate::testing::cluster::{self, Cluster};

    const TLS: v1::Protocol = v1::Protocol::Tls;
    const CLIENT: v1::Side = v1::Side::Client;

    fn edge(side: v1::Side, protocol: v1::Protocol, reason: Reason) -> v1::Edge {
        v1::Edge {
            side: side.into(),
            service: "shop/api".to_owned(),
            port: 80,
            protocol: protocol.into(),
            failure: 1,
            reasons: vec![v1::ReasonCalls {
                reason: reason.as_str().to_owned(),
                calls: 1,
            }],
            ..v1::Edge::default()
        }
    }

    /// What a pod's report of this edge comes to.
    fn arrived(edge: v1::Edge) -> Arrived {
        let now = SystemTime::now();
        let interval = interval_of(now);
        let reports = Reports::new(ReportMetrics::default());
        let reporter = Reporter::certified("uid".into(), &ObjectKey::new("shop", "client"), "web");
        let report = v1::Report {
            process: 1,
            slot: interval * INTERVAL,
            edges: vec![edge],
            ..v1::Report::default()
        };
        reports.take(&reporter, report, true, now);
        let mut arrived = Arrived::new();
        note(&reports.of_interval(interval), &mut arrived);
        arrived
    }

    fn compiled(cluster: &Cluster) -> Compiled {
        let world = Arc::new(cluster.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        Compiled::new(world, model, problems)
    }

    fn news(cluster: &Cluster, edge: v1::Edge) -> Vec<Event> {
        Reported::default().news(&compiled(cluster), arrived(edge), Instant::now())
    }

    #[test]
    fn tls_to_a_port_named_http_is_reported() {
        let events = news(&cluster::shop(), edge(CLIENT, TLS, Reason::BadRequest));
        let [event] = events.as_slice() else {
            panic!("{events:?}")
        };
        let about = &event.about;
        assert_eq!(
            (about.kind.as_str(), about.name.as_str(), about.uid.as_str()),
            ("Service", "api", "uid-api")
        );
        assert_eq!(event.event_type, EventType::Warning);
        assert_eq!(
            event.text,
            "TLS on port 80 named http of Service shop/api: name it https or tcp, or set \
             appProtocol"
        );
        let other = edge(CLIENT, v1::Protocol::Opaque, Reason::BadRequest);
        let events = news(&cluster::shop(), other);
        assert!(events[0].text.starts_with("something else than HTTP on"));
    }

    #[test]
    fn tls_to_a_pod_is_reported_on_its_service() {
        let by_address = |port: u32| v1::Edge {
            service: String::new(),
            pod: "shop/api-1".to_owned(),
            port,
            ..edge(CLIENT, TLS, Reason::BadRequest)
        };
        let headless = cluster::service("db", "None", &[("http", 5000)]);
        let endpoints = [cluster::endpoint("api-1", "10.0.0.11")];
        let slice = cluster::slice("db-x", "db", &[("http", 9000)], &endpoints);
        let cluster = cluster::shop().with(headless).with(slice);
        let events = news(&cluster, by_address(9000));
        let [event] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert!(
            event
                .text
                .starts_with("TLS on port 5000 named http of Service shop/db: "),
            "{event:?}"
        );
        assert!(news(&cluster, by_address(5000)).is_empty());
    }

    #[test]
    fn advice_names_the_service_port_that_decides() {
        let endpoints = [cluster::endpoint("api-1", "10.0.0.11")];
        let late = |name: &str| {
            let service = cluster::service("late", "10.96.0.2", &[(name, 9000)]);
            let slice = cluster::slice("late-x", "late", &[(name, 8080)], &endpoints);
            let service = cluster::created(service, 5);
            cluster::shop().with(service).with(slice)
        };
        let to_late = |protocol: v1::Protocol| v1::Edge {
            service: "shop/late".to_owned(),
            port: 9000,
            ..edge(CLIENT, protocol, Reason::BadRequest)
        };
        let bytes = || to_late(v1::Protocol::Opaque);
        let text = |cluster: &Cluster, edge: v1::Edge| news(cluster, edge)[0].text.clone();
        assert_eq!(
            text(&late("tcp"), bytes()),
            "something else than HTTP on port 9000 named tcp of Service shop/late: port 80 named \
             http of Service shop/api decides for container port 8080: name that one tcp, or set \
             appProtocol, or add 8080 to annotation weft.dev/opaque-ports of the pods"
        );
        // Both, where both declare HTTP, and the other one alone, where this one declares nothing.
        let both = text(&late("http-late"), to_late(TLS));
        let begin = "TLS on port 9000 named http-late of Service shop/late: name it https or tcp, \
                     or set appProtocol; and port 80 named http of Service shop/api decides";
        assert!(both.starts_with(begin), "{both}");
        let begin = "TLS on port 9000 of Service shop/late: port 80 named http of Service shop/api";
        let silent = text(&late("any"), to_late(TLS));
        assert!(silent.starts_with(begin), "{silent}");
        // What the advice names helps: the older port's name, and the annotation.
        let older = cluster::service("api", "10.96.0.1", &[("tcp", 80)]);
        let slice = cluster::slice("api-x", "api", &[("tcp", 8080)], &endpoints);
        assert!(news(&late("tcp").with(older).with(slice), bytes()).is_empty());
        let pod = cluster::pod("api-1", "10.0.0.11", "api");
        let pod = cluster::annotate(pod, OPAQUE_PORTS, "8080");
        assert!(news(&late("tcp").with(pod), bytes()).is_empty());
    }

    #[test]
    fn port_is_reported_once_an_hour() {
        let compiled = compiled(&cluster::shop());
        let mut reported = Reported::default();
        let mut count = |edge: v1::Edge, at: Instant| {
            let events = reported.news(&compiled, arrived(edge), at);
            events.len()
        };
        let tls = || edge(CLIENT, TLS, Reason::BadRequest);
        let bytes = edge(CLIENT, v1::Protocol::Opaque, Reason::BadRequest);
        let begin = Instant::now();
        assert_eq!(count(tls(), begin), 1);
        assert_eq!(count(tls(), begin + AGAIN_AFTER / 2), 0);
        assert_eq!(count(bytes, begin + AGAIN_AFTER / 2), 0);
        assert_eq!(count(tls(), begin + AGAIN_AFTER), 1);
    }

    #[test]
    fn reports_of_called_pods_make_no_event() {
        let shop = cluster::shop();
        for edge in [
            edge(v1::Side::Server, TLS, Reason::BadRequest),
            edge(CLIENT, TLS, Reason::ConnectFailed),
            edge(CLIENT, v1::Protocol::Http1, Reason::BadRequest),
            v1::Edge {
                service: "shop/gone".to_owned(),
                ..edge(CLIENT, TLS, Reason::BadRequest)
            },
            v1::Edge {
                port: 81,
                ..edge(CLIENT, TLS, Reason::BadRequest)
            },
        ] {
            let events = news(&shop, edge);
            assert!(events.is_empty(), "{events:?}");
        }
        let object = cluster::service("api", "10.96.0.1", &[("https", 80)]);
        let endpoints = [cluster::endpoint("api-1", "10.0.0.11")];
        let slice = cluster::slice("api-x", "api", &[("https", 8080)], &endpoints);
        let https = shop.with(object).with(slice);
        assert!(news(&https, edge(CLIENT, TLS, Reason::BadRequest)).is_empty());
    }
}
