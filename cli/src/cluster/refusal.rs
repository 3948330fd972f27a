//! Turns a failed request to the API server into a message with the reason and the way out.

use std::time::Duration;

use crds::observe::GROUP;

use super::response::TooLong;
use crate::failure::Failure;

/// Why a request has no result.
#[derive(Debug)]
pub(crate) struct Refusal {
    what: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// The API server refused, with its status. `again_in`: seconds after which to retry, 0 if it
    /// has none.
    Status {
        code: u16,
        message: String,
        again_in: u32,
    },
    /// The API server knows the kind, and has no object of this name.
    Missing { name: String, message: String },
    /// It was not reached, or the response cannot be read.
    Other(String),
}

impl Refusal {
    pub(crate) fn of(what: &str, error: kube::Error) -> Self {
        let why = match error {
            kube::Error::Api(status) => match missing_name(&status) {
                Some(name) => Why::Missing {
                    name: name.to_owned(),
                    message: status.message.clone(),
                },
                None => Why::Status {
                    code: status.code,
                    message: status.message.clone(),
                    again_in: again_in(&status),
                },
            },
            kube::Error::Service(error) if error.is::<TooLong>() => Why::Other(error.to_string()),
            kube::Error::Service(error) => Why::Other(format!(
                "the API server is not reached: {}; `kubectl config view --minify` shows which \
                 one is queried",
                chain(&*error)
            )),
            error => Why::Other(chain(&error)),
        };
        Self {
            what: what.to_owned(),
            why,
        }
    }

    pub(crate) fn late(what: &str, after: Duration) -> Self {
        Self {
            what: what.to_owned(),
            why: Why::Other(format!(
                "the API server did not answer within {} s",
                after.as_secs_f32()
            )),
        }
    }

    /// The user may not know.
    #[must_use]
    pub(crate) fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// There is no such thing.
    #[must_use]
    pub(crate) fn is_missing(&self) -> bool {
        self.code() == Some(404)
    }

    /// The status, if the API server responded at all.
    #[must_use]
    pub(crate) fn code(&self) -> Option<u16> {
        match self.why {
            Why::Status { code, .. } => Some(code),
            Why::Missing { .. } => Some(404),
            Why::Other(_) => None,
        }
    }

    /// Whether a retry may succeed: the refusal is due neither to the request itself nor to the
    /// rights of its user.
    #[must_use]
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self.code(), Some(400 | 401 | 403 | 404))
    }

    /// The same for a request that succeeded before: its object may be away for a moment too, and
    /// the request is then refused for the object (404) or for its filter (400). A complete API
    /// that is not served any more does not come back.
    #[must_use]
    pub(crate) fn may_pass_again(&self) -> bool {
        self.may_pass() || self.missing().is_some() || self.code() == Some(400)
    }

    /// Seconds after which one of our controllers will respond, as it says: it is starting up or
    /// has no capacity for the response now. None if other clients hold the capacity for an
    /// unlimited time.
    #[must_use]
    pub(crate) fn passes_in(&self) -> Option<u32> {
        match self.why {
            Why::Status {
                code: 429 | 503,
                again_in: seconds @ 1..,
                ..
            } if of_ours(&self.what) => Some(seconds),
            _ => None,
        }
    }

    /// The name of the object that there is not, where it is not the whole API that is not served.
    #[must_use]
    pub(crate) fn missing(&self) -> Option<&str> {
        match &self.why {
            Why::Missing { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The API server's own message.
    #[must_use]
    pub(crate) fn message(&self) -> &str {
        match &self.why {
            Why::Status { message, .. } | Why::Missing { message, .. } | Why::Other(message) => {
                message
            }
        }
    }

    /// The same with the role that grants the right, where one is missing.
    #[must_use]
    pub(crate) fn message_with_role(&self) -> String {
        if self.is_forbidden() {
            with_role(self.message())
        } else {
            self.message().to_owned()
        }
    }

    /// The same as the command's failure.
    #[must_use]
    pub(crate) fn into_failure(self) -> Failure {
        let passes = self.may_pass_again();
        let Self { what, why } = self;
        // What was typed, as our own API understood it.
        if let Why::Status {
            code: 400, message, ..
        } = &why
            && of_ours(&what)
        {
            return Failure::usage(format!("{what}: {message}"));
        }
        let words = match why {
            Why::Missing { message, .. } | Why::Other(message) => format!("{what}: {message}"),
            Why::Status {
                code,
                message,
                again_in,
            } => match code {
                401 => {
                    format!("{what}: the API server does not know these credentials ({message})")
                }
                403 => format!("{what}: {}", with_role(&message)),
                404 if of_ours(&what) => format!(
                    "{what}: API group {GROUP} is not served; Weft is not installed in this \
                     cluster, value observe.enabled is false, or this Weft is older than this \
                     command (`weft version` says which one is there)"
                ),
                503 if of_ours(&what) && again_in == 0 => format!(
                    "{what}: no controller of Weft answers ({message}); `weft check` says why, and \
                     `weft proxy-config POD --direct` queries a proxy without one"
                ),
                _ => format!("{what}: {message}"),
            },
        };
        if passes {
            Failure::Unknown(words)
        } else {
            Failure::Denied(words)
        }
    }
}

/// The name of the missing object; none if a whole API is not served.
fn missing_name(status: &kube::core::Status) -> Option<&str> {
    let name = status.details.as_ref()?.name.as_str();
    (status.reason == "NotFound" && !name.is_empty()).then_some(name)
}

/// Seconds after which to retry, which our controllers report and proxies in between do not.
fn again_in(status: &kube::core::Status) -> u32 {
    let details = status.details.as_ref();
    details.map_or(0, |details| details.retry_after_seconds)
}

/// Whether the request was one for our own read API.
fn of_ours(what: &str) -> bool {
    [
        "graphs",
        "proxies",
        "explanations",
        "scopes",
        "taps",
        "dryruns",
        "routetables",
    ]
    .iter()
    .any(|resource| what.starts_with(resource))
}

fn with_role(message: &str) -> String {
    match denied(message) {
        Some((verb, resource, group)) => {
            let role = role(verb, resource, group);
            format!("{message}; {role} grants this")
        }
        // Admission, or something between: no role helps.
        None => message.to_owned(),
    }
}

/// Verb, resource and group of the right that a refusal names: of a path that is none of a
/// resource's, the verb alone.
fn denied(message: &str) -> Option<(&str, &str, &str)> {
    // Of two namespaces our own API wants one of.
    if message.contains(" can create explanations neither ") {
        return Some(("create", "explanations", GROUP));
    }
    let (_, right) = message.split_once("cannot ")?;
    let (verb, right) = right.split_once(' ')?;
    if right.starts_with("path \"") {
        return Some((verb, "", ""));
    }
    let quoted = |before: &str| {
        let (_, rest) = right.split_once(before)?;
        Some(rest.split_once('"')?.0)
    };
    let resource = quoted("resource \"")?;
    Some((verb, resource, quoted("API group \"").unwrap_or_default()))
}

/// The role that grants a right.
fn role(verb: &str, resource: &str, group: &str) -> String {
    // Without a namespace, a binding of the role for the whole cluster.
    match (group, resource) {
        ("", "") => "ClusterRole system:public-info-viewer, or one with this path".to_owned(),
        // Of users and groups; edit has it of service accounts alone.
        _ if verb == "impersonate" && resource != "serviceaccounts" => {
            "ClusterRole cluster-admin, or one with this right".to_owned()
        }
        (_, "secrets") => "ClusterRole admin in the namespace of Weft".to_owned(),
        (
            "apiextensions.k8s.io"
            | "admissionregistration.k8s.io"
            | "apiregistration.k8s.io"
            // Their Events no default role has, those of the core group alone.
            | "events.k8s.io"
            | "rbac.authorization.k8s.io",
            _,
        )
        | ("", "nodes" | "namespaces") => {
            "ClusterRole cluster-admin, or one with this right".to_owned()
        }
        (GROUP, "dryruns") => "ClusterRole edit".to_owned(),
        // Not bound to any subject by default.
        (GROUP, "taps") => "ClusterRole weft-tap".to_owned(),
        // The right to harm calls has a role of its own.
        (crds::weft::GROUP, "faultexperiments") => "ClusterRole weft-fault-operator".to_owned(),
        (_, "certificateauthorities") if verb == "patch" => {
            "ClusterRole weft-incident".to_owned()
        }
        (_, "revocations") if !["get", "list", "watch"].contains(&verb) => {
            "ClusterRole weft-incident".to_owned()
        }
        // Read by name, and yet not for viewers; neither are leases.
        (_, "pods/portforward") | ("coordination.k8s.io", "leases") => {
            "ClusterRole edit".to_owned()
        }
        _ if ["get", "list", "watch"].contains(&verb) || group == GROUP => {
            "ClusterRole view".to_owned()
        }
        _ => "ClusterRole edit".to_owned(),
    }
}

/// An error with all its causes; of HTTP clients the last one has the reason.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(what: &str, code: u16, message: &str) -> Failure {
        let why = Why::Status {
            code,
            message: message.to_owned(),
            again_in: 0,
        };
        let what = what.to_owned();
        Refusal { what, why }.into_failure()
    }

    fn refusal_of(what: &str, code: u16, message: &str) -> String {
        failure(what, code, message).to_string()
    }

    #[test]
    fn missing_permission_error_names_granting_role() {
        let denied = |rest: &str| {
            let message = format!("forbidden: User \"eve\" cannot {rest}");
            refusal_of("x", 403, &message)
        };
        for (rest, role) in [
            (
                "get resource \"graphs\" in API group \"observe.weft.dev\" in the namespace \"shop\"",
                "ClusterRole view",
            ),
            (
                "create resource \"explanations\" in API group \"observe.weft.dev\"",
                "ClusterRole view",
            ),
            (
                "create resource \"pods/portforward\" in API group \"\" in the namespace \"shop\"",
                "ClusterRole edit",
            ),
            (
                "get resource \"pods/portforward\" in API group \"\" in the namespace \"shop\"",
                "ClusterRole edit",
            ),
            (
                "list resource \"customresourcedefinitions\" in API group \"apiextensions.k8s.io\" at the cluster scope",
                "ClusterRole cluster-admin",
            ),
            (
                "get resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"weft-system\"",
                "ClusterRole edit",
            ),
            (
                "list resource \"events\" in API group \"events.k8s.io\" in the namespace \"weft-system\"",
                "ClusterRole cluster-admin",
            ),
            (
                "get resource \"faultexperiments\" in API group \"weft.dev\" in the namespace \"shop\"",
                "ClusterRole weft-fault-operator",
            ),
            // Control: Kubernetes' own view has these.
            (
                "list resource \"events\" in API group \"\" in the namespace \"weft-system\"",
                "ClusterRole view",
            ),
            (
                "get resource \"deployments\" in API group \"apps\" in the namespace \"weft-system\"",
                "ClusterRole view",
            ),
        ] {
            let refusal_of = denied(rest);
            assert!(
                refusal_of.contains(role) && refusal_of.contains("eve"),
                "{refusal_of}"
            );
        }
    }

    #[test]
    fn role_is_named_only_for_permissions_it_grants() {
        for (message, role) in [
            (
                "users \"bob\" is forbidden: User \"eve\" cannot impersonate resource \"users\" in \
                 API group \"\" at the cluster scope",
                Some("ClusterRole cluster-admin"),
            ),
            (
                "serviceaccounts \"bob\" is forbidden: User \"eve\" cannot impersonate resource \
                 \"serviceaccounts\" in API group \"\" in the namespace \"shop\"",
                Some("ClusterRole edit"),
            ),
            (
                "user \"eve\" can create explanations neither in namespace \"shop\" nor in \"bank\"",
                Some("ClusterRole view"),
            ),
            (
                "forbidden: User \"eve\" cannot get path \"/version\"",
                Some("ClusterRole system:public-info-viewer"),
            ),
            (
                "pods \"web-1\" is forbidden: User \"eve\" cannot patch resource \"pods\" in API \
                 group \"\" in the namespace \"shop\"",
                Some("ClusterRole edit"),
            ),
            (
                "admission webhook \"quota.example\" denied the request: pods cannot be changed now",
                None,
            ),
            ("<html>no access from here</html>", None),
            ("", None),
        ] {
            let words = refusal_of("Pod shop/web-1", 403, message);
            assert!(words.contains(message), "{words}");
            match role {
                Some(role) => assert!(words.contains(&format!("; {role}")), "{words}"),
                None => assert!(!words.contains("grants this"), "{words}"),
            }
        }
    }

    #[test]
    fn unavailable_read_api_is_distinguished_from_missing_object() {
        let unserved = refusal_of("graphs of shop", 404, "page not found");
        assert!(unserved.contains("observe.enabled"), "{unserved}");
        assert!(unserved.contains("not installed"), "{unserved}");
        assert!(refusal_of("graphs of shop", 503, "no endpoints").contains("--direct"));
        let port = failure("explanations", 400, "spec.to.port: say which one");
        assert!(matches!(port, Failure::Usage(_)), "{port:?}");
        for (code, is_over) in [
            (401, true),
            (403, true),
            (404, true),
            (429, false),
            (503, false),
        ] {
            let failure = failure("graphs of shop", code, "no");
            let denied = matches!(failure, Failure::Denied(_));
            assert_eq!(denied, is_over, "{code}: {failure:?}");
        }
        assert_eq!(
            refusal_of("Pod shop/web", 404, "pods \"web\" not found"),
            "Pod shop/web: pods \"web\" not found"
        );
    }

    #[tokio::test]
    async fn oversized_response_is_not_reported_as_unreachable() {
        let body = kube::client::Body::from(b"long".to_vec());
        let error = crate::cluster::whole(body, 3).await.unwrap_err();
        let words = Refusal::of("graphs", error).into_failure().to_string();
        assert!(
            words.starts_with("graphs: the answer is too long"),
            "{words}"
        );
        assert!(!words.contains("not reached"), "{words}");
    }

    #[test]
    fn unreachable_api_server_error_includes_advice() {
        let error = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refusal = Refusal::of("graphs of shop", kube::Error::Service(Box::new(error)));
        assert!(refusal.may_pass());
        assert_eq!(
            refusal.into_failure().to_string(),
            "graphs of shop: the API server is not reached: connection refused; `kubectl config \
             view --minify` shows which one is queried"
        );
    }
}
