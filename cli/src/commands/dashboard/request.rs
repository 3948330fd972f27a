//! Parses requests to the dashboard's server: files of the page, the read API, two kinds of SMI
//! objects, releases and experiments.
//!
//! A path of the API server is parsed into its parts and written anew from them, never passed on
//! as it came, so that only these resources can be reached with the user's rights.
//!
//! Claims: observe-81

use crds::observe::{ExplanationSpec, LIVE, Resource};
use crds::smi::{ACCESS_GROUP, SPLIT_GROUP, STORAGE_VERSION};
use crds::weft::{self, CANARY_RELEASES, FAULT_EXPERIMENTS};

/// Parameters of `graphs/live` that the page uses. No stream: the page polls.
const OF_GRAPHS: [&str; 5] = ["window", "history", "routes", "quiet", "gone"];
/// Longest value of one of them.
const MAX_VALUE: usize = 8;
/// Parameters of `taps/live` that the page uses. Headers are for `weft tap` alone.
const OF_TAPS: [&str; 10] = [
    "watch", "of", "to", "from", "method", "path", "route", "status", "slower", "maxRps",
];
/// Longest value of one of these: the API takes no longer beginning of a path.
const MAX_FILTER: usize = 1024;
/// Longest name of an object of Kubernetes.
const MAX_NAME: usize = 253;

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Page,
    Script,
    Style,
}

/// A request of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PageRequest {
    File(File),
    /// Where the user is.
    Start,
    /// `what` as errors name it, and the path at the API server.
    Read {
        what: String,
        path: String,
    },
    /// The same, of what goes on until its reader leaves.
    Watch {
        what: String,
        path: String,
    },
    Explain(Box<ExplanationSpec>),
}

/// Why a request is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    #[error("the dashboard has nothing there")]
    Path,
    #[error("parameter {0} is unknown, or its value has no meaning")]
    Parameter(String),
}

impl PageRequest {
    /// Reads path and query of a request.
    pub(super) fn read(path: &str, query: Option<&str>) -> Result<Self, Unknown> {
        let query = query.unwrap_or_default();
        match path {
            "/" => Ok(Self::File(File::Page)),
            "/dashboard.js" => Ok(Self::File(File::Script)),
            "/dashboard.css" => Ok(Self::File(File::Style)),
            "/start" => Ok(Self::Start),
            "/explanation" => explanation(query),
            _ => of_cluster(path, query),
        }
    }

    /// Whether the response holds data of the cluster.
    pub(super) fn needs_key(&self) -> bool {
        !matches!(self, Self::File(_))
    }
}

fn explanation(query: &str) -> Result<PageRequest, Unknown> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (Some((name, spec)), None) = (pairs.next(), pairs.next()) else {
        return Err(Unknown::Parameter("spec".to_owned()));
    };
    let spec: Option<ExplanationSpec> = serde_json::from_str(&spec).ok();
    let named = |spec: &ExplanationSpec| {
        let places = [&spec.from.namespace, &spec.to.namespace];
        places
            .into_iter()
            .all(|place| place.is_empty() || is_name(place))
    };
    spec.filter(|spec| name == "spec" && named(spec))
        .map(|spec| PageRequest::Explain(Box::new(spec)))
        .ok_or_else(|| Unknown::Parameter("spec".to_owned()))
}

fn of_cluster(path: &str, query: &str) -> Result<PageRequest, Unknown> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let ["apis", group, version, rest @ ..] = &*parts else {
        return Err(Unknown::Path);
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if is_name(namespace) => (Some(*namespace), rest),
        ["namespaces", ..] => return Err(Unknown::Path),
        rest => (None, rest),
    };
    let place = namespace.map_or_else(String::new, |name| format!(" of {name}"));
    let observe = (crds::observe::GROUP, crds::observe::VERSION);
    let path = match ((*group, *version), rest) {
        (api, ["graphs", LIVE]) if api == observe => {
            let path = Resource::Graphs.path(namespace, Some(LIVE));
            let path = format!("{path}{}", parameters(query, &OF_GRAPHS, is_short)?);
            let what = format!("graphs{place}");
            return Ok(PageRequest::Read { what, path });
        }
        (api, ["taps", LIVE]) if api == observe && namespace.is_some() => {
            let path = Resource::Taps.path(namespace, Some(LIVE));
            let path = format!("{path}{}", parameters(query, &OF_TAPS, is_filter)?);
            let what = format!("taps{place}");
            return Ok(PageRequest::Watch { what, path });
        }
        (api, ["scopes", LIVE]) if api == observe && namespace.is_none() => {
            Resource::Scopes.path(None, Some(LIVE))
        }
        (api, ["proxies"]) if api == observe => Resource::Proxies.path(namespace, None),
        ((SPLIT_GROUP, STORAGE_VERSION), ["trafficsplits"])
        | ((ACCESS_GROUP, STORAGE_VERSION), ["traffictargets"])
        | ((gateway_api::GROUP, "v1"), ["httproutes" | "grpcroutes"])
        | ((weft::GROUP, weft::VERSION), [CANARY_RELEASES | FAULT_EXPERIMENTS]) => {
            listed((*group, *version), namespace, rest[0])
        }
        _ => return Err(Unknown::Path),
    };
    if let Some((name, _)) = form_urlencoded::parse(query.as_bytes()).next() {
        return Err(Unknown::Parameter(name.into_owned()));
    }
    let what = format!("{}{place}", rest[0]);
    Ok(PageRequest::Read { what, path })
}

fn listed((group, version): (&str, &str), namespace: Option<&str>, plural: &str) -> String {
    let place = namespace.map_or_else(String::new, |name| format!("namespaces/{name}/"));
    format!("/apis/{group}/{version}/{place}{plural}")
}

/// Those parameters that are known and whose values fit, written anew; with `?` where there
/// are any.
fn parameters(query: &str, known: &[&str], fits: fn(&str) -> bool) -> Result<String, Unknown> {
    let mut written = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !known.contains(&&*name) || value.is_empty() || !fits(&value) {
            return Err(Unknown::Parameter(name.into_owned()));
        }
        written.append_pair(&name, &value);
    }
    let written = written.finish();
    Ok(if written.is_empty() {
        written
    } else {
        format!("?{written}")
    })
}

fn is_short(value: &str) -> bool {
    value.len() <= MAX_VALUE && value.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Its meaning is validated by the API.
fn is_filter(value: &str) -> bool {
    value.len() <= MAX_FILTER && !value.chars().any(char::is_control)
}

/// Whether a part of a path names an object as Kubernetes allows it; neither `.` nor `..`.
fn is_name(part: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = part.as_bytes();
    bytes.len() <= MAX_NAME
        && part.bytes().all(allowed)
        && ends(bytes.first())
        && ends(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBSERVE: &str = "/apis/observe.weft.dev/v1alpha1";

    fn path(path: &str, query: Option<&str>) -> Option<String> {
        match PageRequest::read(path, query) {
            Ok(PageRequest::Read { path, .. }) => Some(path),
            _ => None,
        }
    }

    #[test]
    fn what_the_page_shows_can_be_asked() {
        for (asked, query) in [
            ("/scopes/live", None),
            ("/graphs/live", None),
            (
                "/graphs/live",
                Some("window=60s&history=30m&routes=1&quiet=1"),
            ),
            ("/namespaces/shop/graphs/live", Some("window=60s")),
            ("/namespaces/shop/proxies", None),
            ("/proxies", None),
        ] {
            let mut wanted = format!("{OBSERVE}{asked}");
            if let Some(query) = query {
                wanted = format!("{wanted}?{query}");
            }
            assert_eq!(path(&format!("{OBSERVE}{asked}"), query), Some(wanted));
        }
        let splits = "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits";
        assert_eq!(path(splits, None).as_deref(), Some(splits));
        let targets = "/apis/access.smi-spec.io/v1alpha4/traffictargets";
        assert_eq!(path(targets, None).as_deref(), Some(targets));
        for plural in ["canaryreleases", "faultexperiments"] {
            let asked = format!("/apis/weft.dev/v1alpha1/namespaces/shop/{plural}");
            assert_eq!(path(&asked, None), Some(asked));
        }
        let routes = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes";
        assert_eq!(path(routes, None).as_deref(), Some(routes));
        let files = [
            ("/", File::Page),
            ("/dashboard.js", File::Script),
            ("/dashboard.css", File::Style),
        ];
        for (path, file) in files {
            let page_request = PageRequest::read(path, None).unwrap();
            assert!(!page_request.needs_key());
            assert_eq!(page_request, PageRequest::File(file));
        }
        assert!(PageRequest::read("/start", None).unwrap().needs_key());
    }

    #[test]
    fn nothing_else_of_the_api_server_can_be_reached() {
        for asked in [
            "/api/v1/secrets".to_owned(),
            "/api/v1/namespaces/shop/secrets".to_owned(),
            "/version".to_owned(),
            "//".to_owned(),
            "/dashboard.js/".to_owned(),
            "/../etc/passwd".to_owned(),
            format!("{OBSERVE}/taps/live"),
            format!("{OBSERVE}/graphs"),
            format!("{OBSERVE}/graphs/other"),
            format!("{OBSERVE}/explanations"),
            format!("{OBSERVE}/namespaces/shop/scopes/live"),
            format!("{OBSERVE}/namespaces/../graphs/live"),
            format!("{OBSERVE}/namespaces/%2e%2e/graphs/live"),
            format!("{OBSERVE}/namespaces/a%2fsecrets/graphs/live"),
            format!("{OBSERVE}/namespaces//graphs/live"),
            format!("{OBSERVE}/namespaces/Shop/graphs/live"),
            format!("{OBSERVE}/namespaces/{}/proxies", "a".repeat(254)),
            format!("{OBSERVE}/graphs/live/"),
            "/apis/split.smi-spec.io/v1alpha1/trafficsplits".to_owned(),
            "/apis/access.smi-spec.io/v1alpha4/trafficsplits".to_owned(),
            "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/web".to_owned(),
            "/apis/weft.dev/v1alpha1/trafficpolicies".to_owned(),
            "/apis/gateway.networking.k8s.io/v1/gateways".to_owned(),
        ] {
            assert_eq!(
                PageRequest::read(&asked, None),
                Err(Unknown::Path),
                "{asked}"
            );
        }
    }

    #[test]
    fn only_parameters_that_the_page_has_are_passed_on() {
        let graph = format!("{OBSERVE}/graphs/live");
        for (query, named) in [
            ("watch=true", "watch"),
            ("window=60s&x=1", "x"),
            ("window=", "window"),
            ("window=60s%26watch%3Dtrue", "window"),
            ("window=999999999", "window"),
        ] {
            let unknown = Unknown::Parameter(named.to_owned());
            assert_eq!(
                PageRequest::read(&graph, Some(query)),
                Err(unknown),
                "{query}"
            );
        }
        let proxies = format!("{OBSERVE}/proxies");
        let unknown = Unknown::Parameter("watch".to_owned());
        assert_eq!(PageRequest::read(&proxies, Some("watch=1")), Err(unknown));
    }

    #[test]
    fn tap_query_requires_namespace_and_known_filters() {
        let tap = format!("{OBSERVE}/namespaces/shop/taps/live");
        let query = "watch=true&of=Deployment%2Fweb&to=Service%2Fcart&from=Namespace%2Fbank\
                     &path=%2Fa+b%26x%3D1&route=cart%2Fread&status=5xx&maxRps=7";
        let wanted = PageRequest::Watch {
            what: "taps of shop".to_owned(),
            path: format!("{tap}?{query}"),
        };
        assert!(wanted.needs_key());
        assert_eq!(PageRequest::read(&tap, Some(query)), Ok(wanted));
        let long = format!("path=/{}", "a".repeat(MAX_FILTER));
        for (query, named) in [
            ("header=user-agent", "header"),
            ("of=Deployment/web&maxrps=7", "maxrps"),
            ("method=", "method"),
            ("path=%2Fa%0Ab", "path"),
            (long.as_str(), "path"),
        ] {
            let unknown = Unknown::Parameter(named.to_owned());
            assert_eq!(
                PageRequest::read(&tap, Some(query)),
                Err(unknown),
                "{query}"
            );
        }
        let everywhere = format!("{OBSERVE}/taps/live");
        let query = Some("watch=true&of=Namespace/shop");
        assert_eq!(PageRequest::read(&everywhere, query), Err(Unknown::Path));
    }

    #[test]
    fn explanation_query_is_parsed_as_strictly_as_api() {
        let asked = |spec: &str| {
            let spec: String = form_urlencoded::byte_serialize(spec.as_bytes()).collect();
            PageRequest::read("/explanation", Some(&format!("spec={spec}")))
        };
        let good = r#"{"from":{"kind":"Deployment","namespace":"shop","name":"web"},"to":{"kind":"Service","namespace":"shop","name":"cart","port":80}}"#;
        assert!(matches!(asked(good), Ok(PageRequest::Explain(_))));
        let unknown = Unknown::Parameter("spec".to_owned());
        for bad in [
            "",
            "{",
            r#"{"from":{},"to":{"kind":"x","name":"y"},"methd":"PUT"}"#,
            &good.replace("shop", "../../../api/v1"),
        ] {
            assert_eq!(asked(bad), Err(unknown.clone()), "{bad}");
        }
        assert_eq!(PageRequest::read("/explanation", None), Err(unknown));
    }
}
