//! The labels and annotations that users and parts of Weft share, with their parsers.
//!
//! The names are a promise to users. The parsers are here so that injector,
//! controller and command line accept exactly the same text.

use std::{ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;
use policy::access_log::AccessLog;
use policy::log_filter::LogFilter;
use policy::share::Share;
use sha2::{Digest, Sha256};

/// What the names of our labels and annotations begin with. Each has its row in `names`.
pub const PREFIX: &str = "weft.dev/";

/// Label on a namespace or pod: [`ENABLED`] or [`DISABLED`]; the pod's wins.
pub const INJECT: &str = "weft.dev/inject";
/// Value of [`INJECT`]: pods get a proxy.
pub const ENABLED: &str = "enabled";
/// Value of [`INJECT`]: pods get none.
pub const DISABLED: &str = "disabled";
/// Label that the injector writes: [`account_hash`] of the pod's service account, so
/// that a NetworkPolicy can select pods by account. A webhook refuses every other
/// value, from any client and at any place.
pub const ACCOUNT: &str = "weft.dev/account";

/// Annotation on a namespace or pod: deny, auto, open or audit.
pub const ACCESS: &str = "weft.dev/access";
/// Annotation on a namespace or pod: allow, audit or deny, of calls that leave the mesh and that
/// no ExternalService gives.
pub const EGRESS: &str = "weft.dev/egress";
/// Annotation on a namespace or pod: permissive or strict.
pub const MTLS: &str = "weft.dev/mtls";
/// Annotation on a namespace or pod: container ports that take plaintext where [`MTLS`] is
/// strict.
pub const PERMISSIVE_PORTS: &str = "weft.dev/permissive-ports";
/// Annotation on a pod, Service or namespace: ports that are never parsed as HTTP.
pub const OPAQUE_PORTS: &str = "weft.dev/opaque-ports";
/// Annotation on a pod or namespace: inbound ports that bypass the proxy.
pub const SKIP_INBOUND_PORTS: &str = "weft.dev/skip-inbound-ports";
/// Annotation on a pod or namespace: outbound ports that bypass the proxy.
pub const SKIP_OUTBOUND_PORTS: &str = "weft.dev/skip-outbound-ports";
/// Annotation on a pod or namespace: outbound networks that bypass the proxy.
pub const SKIP_OUTBOUND_CIDRS: &str = "weft.dev/skip-outbound-cidrs";
/// Annotation on a pod or namespace: CPU that the proxy requests.
pub const PROXY_CPU_REQUEST: &str = "weft.dev/proxy-cpu-request";
/// Annotation on a pod or namespace: most CPU that the proxy may use.
pub const PROXY_CPU_LIMIT: &str = "weft.dev/proxy-cpu-limit";
/// Annotation on a pod or namespace: memory that the proxy requests.
pub const PROXY_MEMORY_REQUEST: &str = "weft.dev/proxy-memory-request";
/// Annotation on a pod or namespace: most memory that the proxy may use.
pub const PROXY_MEMORY_LIMIT: &str = "weft.dev/proxy-memory-limit";
/// Annotation on a pod or namespace: [`DISABLED`] where a pod that is Guaranteed may become
/// Burstable by its proxy; [`ENABLED`], as without it, where it stays Guaranteed.
pub const PROXY_GUARANTEED: &str = "weft.dev/proxy-guaranteed";
/// Annotation on a pod or namespace: what the proxy logs.
pub const LOG_LEVEL: &str = "weft.dev/log-level";
/// Annotation on a pod or namespace: which requests the proxy writes down.
pub const ACCESS_LOG: &str = "weft.dev/access-log";
/// Annotation on a pod or namespace: of the traces that begin at the proxy, those that are
/// recorded, in percent.
pub const TRACE_SAMPLING: &str = "weft.dev/trace-sampling";
/// Annotation of OpenTelemetry on a pod: the name of its service in traces.
pub const SERVICE_NAME: &str = "resource.opentelemetry.io/service.name";
/// Annotation of OpenTelemetry on a pod: what that service belongs to, in traces.
pub const SERVICE_NAMESPACE: &str = "resource.opentelemetry.io/service.namespace";
/// Annotation on a pod or namespace: seconds that an application without a preStop
/// hook goes on serving after its pod is deleted; 0 switches that off.
pub const DRAIN_DELAY: &str = "weft.dev/drain-delay";
/// Annotation on a Service: HTTPRouteGroups of its namespace, after whose matches the
/// requests to its pods are named.
pub const ROUTES: &str = "weft.dev/routes";
/// Annotation on a CanaryRelease or FaultExperiment: a command for its run, `VERB@TIME`. Weft
/// removes it when it is done.
pub const COMMAND: &str = "weft.dev/command";
/// Annotation on a namespace: whether experiments may harm calls from it and to it, `allowed` or
/// `share=5%`; on the mesh's own namespace, [`FAULTS_STOPPED`] ends every experiment.
pub const FAULTS: &str = "weft.dev/faults";
/// Value of [`FAULTS`]: experiments may harm calls.
pub const FAULTS_ALLOWED: &str = "allowed";
/// Value of [`FAULTS`] on the mesh's own namespace: no experiment harms any call.
pub const FAULTS_STOPPED: &str = "stopped";
/// Readiness gate of pods of a new revision, and the condition that opens it: the release lets
/// the pod serve every caller.
pub const RELEASED_CONDITION: &str = "weft.dev/released";
/// Label of Kubernetes on pods of a Deployment: the revision of their template.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotation of the controllers' Lease: the trust domain that they have.
pub const TRUST_DOMAIN: &str = "weft.dev/trust-domain";
/// Annotation that the controller writes on copies of the trust bundle: uid of its service
/// account.
pub const INSTALL: &str = "weft.dev/install";
/// Annotation that the injector writes: version of the proxy in the pod.
pub const PROXY_VERSION: &str = "weft.dev/proxy-version";
/// Annotation that conversion writes: what an older version cannot show.
pub(crate) const SMI_LOSSLESS: &str = "weft.dev/smi-lossless";
/// Annotation of Kubernetes: the container that kubectl means when none is named.
pub(crate) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Most entries of a list of ports or networks. Every entry is a rule that each
/// new connection of the pod walks through; the capture container has the same bound.
pub(crate) const MAX_LIST: usize = 128;
/// Most entries of [`ROUTES`]. Requests have no more names than that.
pub(crate) const MAX_GROUPS: usize = 64;

/// Value of [`ACCOUNT`]: the first 16 hex digits of SHA-256 over `namespace/account`.
///
/// A hash, because a label holds 63 characters and the name of an account up to 253.
/// 64 bits are enough: to pass for another account a pod must have an account *of the same
/// namespace* whose name has the same hash, because every peer of a NetworkPolicy names its
/// namespace too.
#[must_use]
pub fn account_hash(namespace: &str, account: &str) -> String {
    short_hash(&format!("{namespace}/{account}"))
}

/// The first 16 hex digits of SHA-256: short enough for a label and for part of a name.
#[must_use]
pub fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    let bytes = digest.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The service account of a pod's spec: absent and empty mean `default`.
#[must_use]
pub fn account_of(spec: &serde_json::Value) -> &str {
    let named = spec.get("serviceAccountName");
    match named.and_then(serde_json::Value::as_str) {
        None | Some("") => "default",
        Some(account) => account,
    }
}

/// Why a value cannot be used; a clause that follows the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is {value:?}, but must be {expected}")]
pub struct BadValue {
    /// What was written, cut to a readable length.
    pub value: String,
    /// What may be written.
    pub expected: &'static str,
}

impl BadValue {
    fn new(value: &str, expected: &'static str) -> Self {
        Self {
            value: value.chars().take(80).collect(),
            expected,
        }
    }
}

/// Ports and port ranges such as `25,587,3000-3010`; an empty text is an empty list.
pub fn parse_ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, BadValue> {
    let bad = || {
        BadValue::new(
            text,
            "a comma-separated list of at most 128 ports or ranges such as \"25,3000-3010\", \
             each from 1 to 65535",
        )
    };
    let port = |text: &str| match number::<u16>(text.trim()) {
        Some(port) if port > 0 => Ok(port),
        _ => Err(bad()),
    };
    entries(text)
        .map(|entry| {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            let (first, last) = (port(first)?, port(last)?);
            if first <= last {
                Ok(first..=last)
            } else {
                Err(bad())
            }
        })
        .collect::<Result<Vec<_>, _>>()
        .and_then(|ranges| {
            if ranges.len() <= MAX_LIST {
                Ok(ranges)
            } else {
                Err(bad())
            }
        })
}

/// Networks such as `10.0.0.0/8,fd00::/8`; an empty text is an empty list.
pub fn parse_cidrs(text: &str) -> Result<Vec<IpNet>, BadValue> {
    let bad = || {
        BadValue::new(
            text,
            "a comma-separated list of at most 128 networks such as \"10.0.0.0/8,fd00::/8\"",
        )
    };
    entries(text)
        .map(|entry| entry.parse().map_err(|_| bad()))
        .collect::<Result<Vec<IpNet>, _>>()
        .and_then(|nets| {
            if nets.len() <= MAX_LIST {
                Ok(nets)
            } else {
                Err(bad())
            }
        })
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

/// [`ROUTES`]: names of HTTPRouteGroups such as `cart,checkout`; an empty text is an empty
/// list, which names nothing.
pub fn parse_routes(text: &str) -> Result<Vec<&str>, BadValue> {
    let is_name = |name: &str| {
        let end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let inner = |byte: &u8| end(byte) || matches!(byte, b'-' | b'.');
        let bytes = name.as_bytes();
        bytes.len() <= 253
            && bytes.iter().all(inner)
            && bytes.first().is_some_and(end)
            && bytes.last().is_some_and(end)
    };
    let names: Vec<&str> = entries(text).collect();
    if names.len() <= MAX_GROUPS && names.iter().all(|name| is_name(name)) {
        Ok(names)
    } else {
        Err(BadValue::new(
            text,
            "a comma-separated list of at most 64 names of HTTPRouteGroups of the Service's \
             namespace, such as \"cart,checkout\"",
        ))
    }
}

/// [`INJECT`] and [`PROXY_GUARANTEED`]: true for [`ENABLED`], false for [`DISABLED`].
pub fn parse_inject(text: &str) -> Result<bool, BadValue> {
    match text {
        ENABLED => Ok(true),
        DISABLED => Ok(false),
        _ => Err(BadValue::new(text, "\"enabled\" or \"disabled\"")),
    }
}

/// [`ACCESS_LOG`]: returned as it is when it can be used.
pub fn parse_access_log(text: &str) -> Result<&str, BadValue> {
    match AccessLog::from_str(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(BadValue::new(text, AccessLog::EXPECTED)),
    }
}

/// [`LOG_LEVEL`]: a level, or a list of levels and `module=level` pairs; returned as it
/// is when it can be used.
pub fn parse_log_level(text: &str) -> Result<&str, BadValue> {
    match LogFilter::from_str(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(BadValue::new(text, LogFilter::EXPECTED)),
    }
}

/// [`TRACE_SAMPLING`]: a percentage.
pub fn parse_trace_sampling(text: &str) -> Result<Share, BadValue> {
    Share::from_str(text).map_err(|_| BadValue::new(text, Share::EXPECTED))
}

/// [`DRAIN_DELAY`] in whole seconds.
pub fn parse_drain_delay(text: &str) -> Result<u32, BadValue> {
    match number::<u32>(text) {
        Some(seconds) if seconds <= 3600 => Ok(seconds),
        _ => Err(BadValue::new(
            text,
            "a whole number of seconds from 0 to 3600",
        )),
    }
}

/// Digits only: `from_str` alone would take a sign too, and the next reader of the text does not.
fn number<N: FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| N::from_str(text).ok()).flatten()
}

/// A Kubernetes quantity such as `10m`, `0.5` or `20Mi`, above zero; returned as it is
/// when it can be used.
pub fn parse_quantity(text: &str) -> Result<&str, BadValue> {
    const SUFFIXES: [&str; 12] = [
        "", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi",
    ];
    let bad = || {
        BadValue::new(
            text,
            "a quantity above zero such as \"10m\", \"0.5\" or \"20Mi\"",
        )
    };
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let digits = number.chars().filter(char::is_ascii_digit).count();
    let positive = number.chars().any(|c| ('1'..='9').contains(&c));
    let points = number.len() - digits;
    if positive && digits <= 18 && points <= 1 && SUFFIXES.contains(&suffix) {
        Ok(text)
    } else {
        Err(bad())
    }
}

/// A quantity in thousandths, or None for one that [`parse_quantity`] refuses or that is
/// finer. The API server rewrites quantities (`0.5` becomes `500m`), so their texts must
/// not be compared.
#[must_use]
pub fn quantity_in_milli(text: &str) -> Option<i128> {
    let text = parse_quantity(text).ok()?;
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let unit: i128 = match suffix.as_bytes() {
        [] => 1000,
        [b'm'] => 1,
        [prefix, binary @ ..] => {
            let power = u32::try_from("kmgtp".find(prefix.to_ascii_lowercase() as char)?).ok()?;
            let base: i128 = if binary.is_empty() { 1000 } else { 1024 };
            base.checked_pow(power + 1)?.checked_mul(1000)?
        }
    };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = digits.checked_mul(unit)?;
    (value % scale == 0).then_some(value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lists_take_ports_and_ranges_and_nothing_else() {
        assert_eq!(
            parse_ports("25, 3000-3010,"),
            Ok(vec![25..=25, 3000..=3010])
        );
        assert_eq!(parse_ports(""), Ok(vec![]));
        for bad in [
            "0", "65536", "10-9", "a", "1-2-3", "-1", "+1", "1-+2", "1-", "25;26",
        ] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
        let long = vec!["1"; MAX_LIST + 1].join(",");
        assert!(parse_ports(&long).is_err());
    }

    #[test]
    fn routes_annotation_holds_up_to_64_group_names() {
        assert_eq!(
            parse_routes("cart, check.out-2,"),
            Ok(vec!["cart", "check.out-2"])
        );
        assert_eq!(parse_routes(""), Ok(vec![]));
        let long = "a".repeat(254);
        for bad in [
            "Cart",
            "cart;web",
            "shop/cart",
            "-a",
            "a.",
            "a b",
            long.as_str(),
        ] {
            assert!(parse_routes(bad).is_err(), "{bad}");
        }
        assert!(parse_routes(&vec!["a"; MAX_GROUPS].join(",")).is_ok());
        assert!(parse_routes(&vec!["a"; MAX_GROUPS + 1].join(",")).is_err());
    }

    #[test]
    fn account_label_hash_never_changes() {
        // Written into NetworkPolicies and pods of running clusters and known as
        // `printf shop/web | sha256sum | cut -c1-16`.
        assert_eq!(account_hash("shop", "web"), "97375646b1deb3d2");
        assert_ne!(account_hash("shop", "web"), account_hash("other", "web"));
        // A namespace holds no slash, so no two accounts share a text.
        assert_ne!(account_hash("a", "b.c"), account_hash("a.b", "c"));
    }

    #[test]
    fn networks_need_a_prefix_length() {
        assert_eq!(
            parse_cidrs("10.0.0.0/8,fd00::/8").map(|nets| nets.len()),
            Ok(2)
        );
        for bad in ["10.0.0.1", "10.0.0.0/33", "x/8"] {
            assert!(parse_cidrs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes_and_not_zero() {
        for good in ["10m", "1", "0.5", "20Mi", "1.5Gi"] {
            assert_eq!(parse_quantity(good), Ok(good));
        }
        for bad in [
            "", "m", "0", "0m", "-1", "10 m", "1.2.3", "10mi", "1e3x", ".",
        ] {
            assert!(parse_quantity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_equal_however_they_are_written() {
        for (one, other) in [
            ("0.5", "500m"),
            ("1", "1000m"),
            ("1.5Gi", "1536Mi"),
            ("1M", "1000k"),
        ] {
            assert_eq!(quantity_in_milli(one), quantity_in_milli(other), "{one}");
            assert!(quantity_in_milli(one).is_some(), "{one}");
        }
        assert_ne!(quantity_in_milli("1M"), quantity_in_milli("1Mi"));
        assert_ne!(quantity_in_milli("1m"), quantity_in_milli("1M"));
    }

    #[test]
    fn a_share_of_traces_is_a_percentage() {
        for good in ["0", "0.01", "100"] {
            assert!(parse_trace_sampling(good).is_ok(), "{good}");
        }
        for bad in ["", "-1", "101", "10%", "all"] {
            assert!(parse_trace_sampling(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn log_level_is_level_or_module_level_pairs() {
        for good in ["info", "warn,proxy=debug", "proxy::tcp=trace"] {
            assert_eq!(parse_log_level(good), Ok(good));
        }
        for bad in ["", "loud", "a=b", "info,", "in fo", "a b=info"] {
            assert!(parse_log_level(bad).is_err(), "{bad}");
        }
    }
}
