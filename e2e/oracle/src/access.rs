//! TrafficTargets: whether a call may pass.

use serde_json::Value;

use crate::{
    Call, Caller, Request, Traffic, World,
    object::{account, list, namespace, rules, spec, text},
    path,
    ports::Carries,
    shape::readable,
};

impl World {
    /// Whether the call reaches the application. A call to a pod that does not exist
    /// does not.
    pub fn allows(&self, call: &Call) -> bool {
        let Some(pod) = self.callee(call) else {
            return false;
        };
        if call.caller == Caller::Outside && self.is_strict(pod) {
            return false;
        }
        let carries = self.carries(pod, call.port);
        if call.traffic == Traffic::Bytes && carries == Carries::Http {
            // It cannot be read as what it was declared to be.
            return false;
        }
        match self.access_mode(pod) {
            "open" | "audit" => return true,
            "auto"
                if !self
                    .all("TrafficTarget")
                    .any(|target| self.protects(target, pod)) =>
            {
                return true;
            }
            _ => {}
        }
        let request = match &call.traffic {
            // A port that is declared as bytes is evaluated as bytes, whatever it carries.
            Traffic::Http(request) if carries != Carries::Bytes => Some(request),
            _ => None,
        };
        let Some(request) = request else {
            return self
                .all("TrafficTarget")
                .any(|target| self.target_allows(target, call, pod, None));
        };
        let mut path = request.path.clone();
        let mut targets = self.all("TrafficTarget");
        if targets.any(|target| self.has_http_rules(target, pod, call.port)) {
            match path::normal(&path) {
                Some(normal) => path = normal,
                None => return self.allows_each_reading(call, pod, request),
            }
        }
        self.all("TrafficTarget")
            .any(|target| self.target_allows(target, call, pod, Some((request, &path))))
    }

    /// Whether the request passes in every way in which its slashes can be read, and nothing
    /// else of its path can be read in several.
    fn allows_each_reading(&self, call: &Call, pod: &Value, request: &Request) -> bool {
        let readings = path::readings(&request.path);
        let passes = |path: &String| {
            let mut targets = self.all("TrafficTarget");
            targets
                .any(|target| self.target_allows(target, call, pod, Some((request, path.as_str()))))
        };
        !readings.is_empty() && readings.iter().all(passes)
    }

    /// Whether what nothing allows is refused.
    pub fn is_guarded(&self, pod: &Value) -> bool {
        match self.access_mode(pod) {
            "open" | "audit" => false,
            "auto" => self
                .all("TrafficTarget")
                .any(|target| self.protects(target, pod)),
            _ => true,
        }
    }

    /// The pod that a call goes to.
    pub fn callee(&self, call: &Call) -> Option<&Value> {
        self.find("Pod", &call.namespace, &call.pod)
    }

    /// One target on its own. `request` is absent for bytes.
    fn target_allows(
        &self,
        target: &Value,
        call: &Call,
        pod: &Value,
        request: Option<(&Request, &str)>,
    ) -> bool {
        if !readable(target) || !self.is_destination(target, pod) {
            return false;
        }
        let home = namespace(target);
        let caller = list(&spec(target)["sources"])
            .iter()
            .any(|source| self.source_means(source, home, &call.caller));
        let named = |kind: &'static str| {
            let rules = list(rules(target)).iter();
            rules.filter(move |rule| rule["kind"] == kind)
        };
        let tcp = named("TCPRoute").next().is_some();
        let port_in_route = named("TCPRoute")
            .any(|rule| self.route_holds(home, text(&rule["name"]), pod, call.port));
        let http = named("HTTPRouteGroup").next().is_some();
        let request_in_group = request.is_some_and(|(request, path)| {
            named("HTTPRouteGroup").any(|rule| {
                let names = rule["matches"].as_array().map(Vec::as_slice);
                self.group_fits(home, text(&rule["name"]), names, request, path)
            })
        });
        let traffic = match (request.is_some(), http, tcp) {
            (true, true, true) => request_in_group && port_in_route,
            (true, true, false) => request_in_group,
            (true, false, true) => port_in_route,
            // A port that is declared as bytes needs no HTTP. Bytes on any other port are
            // no request, and a target with HTTP rules requires one.
            (false, true, true) => port_in_route && self.carries(pod, call.port) == Carries::Bytes,
            (false, false, true) => port_in_route,
            (_, _, false) => false,
        };
        caller && traffic && self.destination_port_fits(target, pod, call.port)
    }

    /// `destination.port` of the old versions.
    fn destination_port_fits(&self, target: &Value, pod: &Value, port: u16) -> bool {
        match &spec(target)["destination"]["port"] {
            Value::Null => true,
            Value::String(text) => {
                let number = text.parse().unwrap_or(0);
                self.container_ports(pod, number).contains(&port)
            }
            number => {
                let number = number.as_i64().unwrap_or(0);
                self.container_ports(pod, number).contains(&port)
            }
        }
    }

    pub(crate) fn source_means(&self, source: &Value, home: &str, caller: &Caller) -> bool {
        let name = text(&source["name"]);
        let stated = match text(&source["namespace"]) {
            "" => home,
            stated if is_label(stated) => stated,
            // No namespace has such a name, and no source means anything there.
            _ => return false,
        };
        let pod = match caller {
            Caller::Pod { namespace, name } => self.find("Pod", namespace, name),
            Caller::Outside => None,
        };
        match source["kind"].as_str() {
            Some("Group") => match name {
                "system:authenticated" => pod.is_some(),
                "system:unauthenticated" => *caller == Caller::Outside,
                _ => false,
            },
            Some("ServiceAccount") => {
                pod.is_some_and(|pod| namespace(pod) == stated && account(pod) == name)
            }
            Some("IdentityBinding") => {
                let binding = self.find("IdentityBinding", stated, name);
                pod.zip(binding)
                    .is_some_and(|(pod, binding)| Self::binding_means(binding, pod))
            }
            _ => false,
        }
    }

    /// Whether the target has HTTP rules for the port that could allow any caller.
    fn has_http_rules(&self, target: &Value, pod: &Value, port: u16) -> bool {
        if !readable(target) || !self.is_destination(target, pod) {
            return false;
        }
        let home = namespace(target);
        let any_source = list(&spec(target)["sources"])
            .iter()
            .any(|source| self.can_match_callers(source, home));
        let rules = list(rules(target));
        let mut routes = rules.iter().filter(|rule| rule["kind"] == "TCPRoute");
        let limited = rules.iter().any(|rule| rule["kind"] == "TCPRoute");
        any_source
            && rules.iter().any(|rule| rule["kind"] == "HTTPRouteGroup")
            && (!limited
                || routes.any(|rule| self.route_holds(home, text(&rule["name"]), pod, port)))
            && self.destination_port_fits(target, pod, port)
    }

    fn can_match_callers(&self, source: &Value, home: &str) -> bool {
        let name = text(&source["name"]);
        let account = |text: &str| text.len() <= 253 && text.split('.').all(is_label);
        let stated = text(&source["namespace"]);
        if !(stated.is_empty() || is_label(stated)) {
            return false;
        }
        match source["kind"].as_str() {
            Some("Group") => ["system:authenticated", "system:unauthenticated"].contains(&name),
            Some("ServiceAccount") => account(name),
            Some("IdentityBinding") => {
                let stated = if stated.is_empty() { home } else { stated };
                self.find("IdentityBinding", stated, name)
                    .is_some_and(|binding| self.binding_can_match_callers(binding))
            }
            _ => false,
        }
    }

    /// Whether the target is about this pod and can be understood.
    fn is_destination(&self, target: &Value, pod: &Value) -> bool {
        let destination = &spec(target)["destination"];
        let understood = match destination["kind"].as_str() {
            Some("ServiceAccount") => true,
            Some("IdentityBinding") => self
                .find(
                    "IdentityBinding",
                    namespace(target),
                    text(&destination["name"]),
                )
                .is_some_and(Self::is_understood),
            _ => false,
        };
        understood && self.names(target, pod)
    }

    /// Whether the target names the pod, in its own namespace.
    pub(crate) fn names(&self, target: &Value, pod: &Value) -> bool {
        let destination = &spec(target)["destination"];
        let stated = text(&destination["namespace"]);
        let name = text(&destination["name"]);
        let home = namespace(target) == namespace(pod)
            && (stated.is_empty() || stated == namespace(target));
        home && if destination["kind"] == "IdentityBinding" {
            self.find("IdentityBinding", namespace(target), name)
                .is_some_and(|binding| Self::binding_names(binding, pod))
        } else {
            name == account(pod)
        }
    }

    /// Whether the target closes the pod in mode auto. A mistake does not open it, but
    /// rules that are all about UDP say nothing about TCP.
    fn protects(&self, target: &Value, pod: &Value) -> bool {
        let rules = list(rules(target));
        let only_udp = readable(target)
            && !rules.is_empty()
            && rules.iter().all(|rule| rule["kind"] == "UDPRoute");
        self.names(target, pod) && !only_udp
    }
}

/// Whether a namespace, or a part of another name, can be called so.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = [text.bytes().next(), text.bytes().next_back()];
    let ends_fit = ends.iter().all(|end| end.is_some_and(|end| end != b'-'));
    text.len() <= 63 && ends_fit && text.bytes().all(inner)
}
