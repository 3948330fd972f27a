//! Selects the calls that leave the mesh, and writes an ExternalService for each host or address
//! that an account called.
//!
//! What is suggested gives an account what it called and nothing else: accounts stand in one
//! object only if they called the same ports of it, and no object has a wildcard or a network that
//! is larger than one address. Names are those that callers sent, which prove nothing about where
//! a call went: a reader has to know each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crds::labels::short_hash;
use crds::observe::{Edge, NodeKind, Protocol};
use crds::weft;
use policy::egress::{ExternalProtocol, host_name};
use policy::reason::Reason;
use serde_json::{Value, json};

use super::called::{self, Account};
use super::observed_calls::{served, unserved};
use crate::console::Console;
use crate::escape;
use crate::failure::{Conclusion, Failure};
use crate::output::{self, Format};
use crate::traffic::IndexedGraph;

/// What is counted under where there are too many names.
const OTHER: &str = "other";

/// Characters of a host that the name of an object keeps: with what stands around them it is one
/// that a Service may have.
const KEPT: usize = 48;

/// The way from a suggestion to a closed namespace.
const NEXT_STEPS: &str = "before it closes anything: apply it, annotate the namespace with \
                          weft.dev/egress=audit, and look at weft_audit_egress_total, which counts \
                          the calls that no ExternalService gives; when it stays at 0, annotate it \
                          with weft.dev/egress=deny";

/// Ports of a host or address.
type Ports = BTreeMap<u16, ExternalProtocol>;

/// A host or an address, as an object names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Destination {
    Host(String),
    Address(IpAddr),
}

/// The calls that leave, and those that nothing is suggested for.
#[derive(Clone, Debug, Default)]
pub(super) struct LeavingCalls {
    facts: BTreeMap<(Account, Destination), Ports>,
    /// Why others are left out, a line each.
    left: Vec<String>,
}

/// Prints the objects, and what has to be known about them.
pub(super) fn print<'a>(
    traffic: &IndexedGraph,
    edges: impl Iterator<Item = &'a Edge>,
    here: Option<&str>,
    format: Format,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let calls = LeavingCalls::of(traffic, edges, here);
    let objects = calls.objects();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    if output::data(console, format, &list)? {
        for word in &calls.left {
            console.word(&format!("left out: {word}"))?;
        }
    } else {
        for object in &objects {
            console.line(&format!("---\n{}", output::yaml(object)?.trim_end()))?;
        }
        for word in &calls.left {
            console.line(&format!("# left out: {}", escape::plain(word)))?;
        }
    }
    console.word(match objects.is_empty() {
        true => "no calls to hosts outside the mesh that an ExternalService could give",
        false => NEXT_STEPS,
    })?;
    if let Some(word) = traffic.word() {
        console.word(&word)?;
    }
    Ok(Conclusion::Yes)
}

impl LeavingCalls {
    pub(super) fn of<'a>(
        traffic: &IndexedGraph,
        edges: impl Iterator<Item = &'a Edge>,
        here: Option<&str>,
    ) -> Self {
        let mut calls = Self::default();
        for edge in edges {
            let (Some(from), Some(to)) = (traffic.node(&edge.from), traffic.node(&edge.to)) else {
                continue;
            };
            let elsewhere = here.is_some_and(|here| here != from.namespace);
            // A name with a slash is that of an object that gives the call already.
            if elsewhere || to.kind != NodeKind::External || to.name.contains('/') {
                continue;
            }
            if let Err(why) = calls.add(edge, &to.name) {
                let named = called::named(traffic, edge, here);
                calls.left.push(format!("{named}: {why}"));
            }
        }
        calls
    }

    fn add(&mut self, edge: &Edge, name: &str) -> Result<(), String> {
        let refused = edge.refused.get(Reason::EgressDenied.as_str());
        if let Some(refused) = refused.filter(|refused| **refused > 0) {
            return Err(format!(
                "{refused} of its calls are refused; write an ExternalService if they are meant"
            ));
        }
        if !served(edge) {
            return Err(unserved(edge));
        }
        if edge.port == 0 || name == OTHER {
            return Err("is counted together with others".to_owned());
        }
        if edge.identities.is_empty() {
            return Err(
                "no meshed pod of the caller is known now, so its account is not".to_owned(),
            );
        }
        let destination = match name.parse::<IpAddr>() {
            Ok(address) => Destination::Address(address),
            Err(_) => match host_name(name) {
                Some(host) => Destination::Host(host.into_owned()),
                None => return Err("its name is none that DNS could have".to_owned()),
            },
        };
        let protocol = match (edge.protocol, &destination) {
            (Protocol::Tls, _) => ExternalProtocol::Tls,
            (_, Destination::Address(_)) => ExternalProtocol::Tcp,
            // Bytes that name a host are TLS or requests.
            (_, Destination::Host(_)) => ExternalProtocol::Http,
        };
        for caller in &edge.identities {
            let account =
                called::account(caller).ok_or("an identity of the callers is no account")?;
            let ports = self
                .facts
                .entry((account, destination.clone()))
                .or_default();
            let known = *ports.entry(edge.port).or_insert(protocol);
            if known != protocol {
                return Err(format!(
                    "the port is suggested for {}, and one port has one protocol",
                    known.as_str()
                ));
            }
        }
        Ok(())
    }

    /// Objects for what was called, each with the accounts that called the same.
    pub(super) fn objects(&self) -> Vec<Value> {
        let mut callers: BTreeMap<(&str, &Destination, &Ports), BTreeSet<&str>> = BTreeMap::new();
        for (((namespace, account), destination), ports) in &self.facts {
            let key = (namespace.as_str(), destination, ports);
            callers.entry(key).or_default().insert(account);
        }
        let of = |((namespace, destination, ports), accounts): (
            (&str, &Destination, &Ports),
            BTreeSet<&str>,
        )| {
            let sources = accounts.into_iter();
            let sources = sources.map(|name| json!({"kind": "ServiceAccount", "name": name}));
            let listed = ports.iter();
            let listed =
                listed.map(|(port, protocol)| json!({"port": port, "protocol": protocol.as_str()}));
            let (field, value) = destination.field();
            let mut spec = json!({
                "ports": listed.collect::<Vec<_>>(),
                "sources": sources.collect::<Vec<_>>(),
            });
            spec[field] = json!([value]);
            json!({
                "apiVersion": format!("{}/{}", weft::GROUP, weft::VERSION),
                "kind": "ExternalService",
                "metadata": {"name": destination.object_name(ports), "namespace": namespace},
                "spec": spec,
            })
        };
        callers.into_iter().map(of).collect()
    }
}

impl Destination {
    /// Where an object has it.
    fn field(&self) -> (&'static str, String) {
        match self {
            Self::Host(host) => ("hosts", host.clone()),
            Self::Address(address) => {
                let prefix = if address.is_ipv4() { 32 } else { 128 };
                ("addresses", format!("{address}/{prefix}"))
            }
        }
    }

    /// The same for the same ports in every run. Without dots, so that a Service may have it.
    fn object_name(&self, ports: &Ports) -> String {
        let (_, value) = self.field();
        let ports: Vec<(u16, &str)> = ports
            .iter()
            .map(|(port, protocol)| (*port, protocol.as_str()))
            .collect();
        let hash = short_hash(&json!([value, ports]).to_string());
        let name = value.split('/').next().unwrap_or_default();
        let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        let name: String = name.trim_matches('-').chars().take(KEPT).collect();
        // Names of Services begin with a letter.
        format!("to-{name}-{}", &hash[..8])
    }
}

#[cfg(test)]
mod tests {
    use crds::observe::Graph;
    use crds::smi::validation::{Cluster, Severity};

    use super::*;

    fn traffic(edges: &[Value]) -> IndexedGraph {
        let id = |name: &str| format!("shop/Deployment/{name}");
        let workload = |name: &str| json!({"id": id(name), "kind": "Deployment", "namespace": "shop", "name": name});
        let outside = |name: &str| json!({"id": format!("External/{name}"), "kind": "External", "name": name});
        let graph = json!({
            "metadata": {"windowSeconds": 300, "complete": true},
            "nodes": [
                workload("web"), workload("job"), outside("api.pay.example"),
                outside("203.0.113.7"), outside("shop/payments"), outside("A b"),
                outside("new.example"),
            ],
            "edges": edges,
        });
        let graph: Graph = serde_json::from_value(graph).unwrap();
        IndexedGraph::of(graph)
    }

    fn edge(from: &str, to: &str, port: u16, protocol: &str) -> Value {
        json!({
            "id": format!("{from}-{to}-{port}-{protocol}"),
            "from": format!("shop/Deployment/{from}"), "to": format!("External/{to}"),
            "port": port, "protocol": protocol, "requests": 5, "success": 5,
            "identities": [format!("spiffe://cluster.local/ns/shop/sa/{from}")],
        })
    }

    fn suggested(edges: &[Value]) -> (Vec<Value>, Vec<String>) {
        let traffic = traffic(edges);
        let calls = LeavingCalls::of(&traffic, traffic.edges().iter(), Some("shop"));
        let objects = calls.objects();
        let at = Cluster::default();
        let at = at.around("shop");
        for object in &objects {
            let spec = object.get("spec");
            let mistakes = crds::validate::object(weft::GROUP, "ExternalService", spec, &at);
            let mistakes = mistakes.unwrap();
            let refused = mistakes.iter().find(|one| one.severity == Severity::Refuse);
            assert_eq!(refused, None, "{object}");
        }
        (objects, calls.left)
    }

    #[test]
    fn accounts_share_external_service_only_with_identical_ports() {
        let (objects, left) = suggested(&[
            edge("web", "api.pay.example", 443, "tls"),
            edge("job", "api.pay.example", 443, "tls"),
            edge("web", "203.0.113.7", 5432, "tcp"),
        ]);
        assert_eq!(left, [""; 0]);
        assert_eq!(objects.len(), 2, "{objects:?}");
        let of = |field: &str| objects.iter().find(|one| one["spec"][field].is_array());
        let named = of("hosts").unwrap();
        assert_eq!(named["spec"]["hosts"], json!(["api.pay.example"]));
        let port = json!([{"port": 443, "protocol": "TLS"}]);
        assert_eq!(named["spec"]["ports"], port);
        let account = |name| json!({"kind": "ServiceAccount", "name": name});
        assert_eq!(
            named["spec"]["sources"],
            json!([account("job"), account("web")])
        );
        let addressed = of("addresses").unwrap();
        assert_eq!(addressed["spec"]["addresses"], json!(["203.0.113.7/32"]));
        assert_eq!(addressed["spec"]["sources"], json!([account("web")]));

        let (objects, _) = suggested(&[
            edge("web", "api.pay.example", 443, "tls"),
            edge("job", "api.pay.example", 443, "tls"),
            edge("job", "api.pay.example", 80, "tcp"),
        ]);
        assert_eq!(objects.len(), 2, "each with the ports of its account");
        let names: BTreeSet<&str> = objects
            .iter()
            .filter_map(|one| one["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn calls_that_prove_no_need_are_left_out() {
        let mut failed = edge("web", "api.pay.example", 443, "tls");
        failed["success"] = json!(0);
        let mut refused = edge("web", "203.0.113.7", 443, "tls");
        refused["refused"] = json!({"egress-denied": 2});
        let mut unknown = edge("job", "api.pay.example", 443, "tls");
        unknown["identities"] = json!([]);
        let given = edge("web", "shop/payments", 443, "tls");
        let nameless = edge("web", "A b", 80, "tcp");
        let mut newest = edge("web", "new.example", 443, "tls");
        (newest["requests"], newest["success"]) = (json!(0), json!(0));
        let (objects, left) = suggested(&[failed, refused, unknown, given, nameless, newest]);
        assert_eq!(objects, [Value::Null; 0]);
        assert_eq!(left.len(), 5, "what an object gives is done: {left:?}");
        for (line, why) in left.iter().zip([
            "was not served",
            "2 of its calls are refused",
            "its account is not",
            "its name is none",
            "calls of the last 30 s are not counted yet",
        ]) {
            assert!(line.contains(why), "{line}");
        }
    }
}
