//! Parses the query of a tap.
//!
//! Claims: observe-126

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use model::PodId;
use model::world::ObjectKey;
use prost::Message as _;
use wire::v1;

use super::pods::Pods;
use super::pods::TapEnd;
use crate::aggregated::duration;
use crate::aggregated::refusal::Refusal;
use crate::inventory::kind::MetricsKind;

/// Length of a query; the API server bounds it further.
const MAX_QUERY: usize = 8192;
/// Requests in a second, over all proxies, where none are given; and at most.
const RATE: (u32, u32) = (100, 1_000);
/// Names behind each of `to` and `from`.
const MAX_ENDS: usize = 16;
/// Headers of one tap.
const MAX_HEADERS: usize = 8;
/// Max bytes of the query to each proxy: beside the uids of all proxies it has to fit into one
/// message to another replica, of 32 KiB.
const MAX_QUERY_BYTES: usize = 8 * 1024;
/// Bytes of a path's beginning, and of a route's name.
const MAX_PATH: usize = 1024;

/// See the module header.
#[derive(Debug)]
pub(super) struct TapQuery {
    pub(super) of: TapEnd,
    /// The namespace that is tapped.
    here: String,
    to: Vec<TapEnd>,
    from: Vec<TapEnd>,
    method: String,
    path: String,
    route: String,
    status: (u16, u16),
    slower: Duration,
    rate: u32,
    headers: Vec<String>,
}

fn wrong(name: &str, why: fmt::Arguments<'_>) -> Refusal {
    Refusal::bad(format!("parameter {name}: {why}"))
}

impl TapQuery {
    /// Reads a query whose parameters are known by their names. A filter that cannot be read is
    /// refused.
    pub(super) fn parse(
        query: &str,
        namespace: &str,
        visible_headers: &BTreeSet<String>,
    ) -> Result<Self, Refusal> {
        if query.len() > MAX_QUERY {
            let why = format!("the query is longer than {MAX_QUERY} bytes");
            return Err(Refusal::bad(why));
        }
        let (mut of, mut watch) = (None, false);
        let mut read = Self {
            of: TapEnd::Object(MetricsKind::Namespace, ObjectKey::new("", namespace)),
            here: namespace.to_owned(),
            to: Vec::new(),
            from: Vec::new(),
            method: String::new(),
            path: String::new(),
            route: String::new(),
            status: (0, 0),
            slower: Duration::ZERO,
            rate: RATE.0,
            headers: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let end = |name: &str| {
                TapEnd::parse(&value, namespace).ok_or_else(|| {
                    wrong(name, format_args!("{value:?} is no Kind/name of a workload, Pod, Service, ServiceAccount or Namespace"))
                })
            };
            match &*name {
                "watch" => watch = matches!(&*value, "1" | "true" | ""),
                "of" => of = Some(end("of")?),
                "to" => read.to.push(end("to")?),
                "from" => read.from.push(end("from")?),
                "method" => read.method = method(&value)?,
                "path" => read.path = path(&value)?,
                "route" => read.route = route(&value)?,
                "status" => read.status = status(&value)?,
                "slower" => read.slower = slower(&value)?,
                "maxRps" => read.rate = rate(&value)?,
                "header" => read.headers.push(header(&value, visible_headers)?),
                _ => {}
            }
        }
        if !watch {
            return Err(wrong(
                "watch",
                format_args!("a tap is a stream and goes with watch=true"),
            ));
        }
        read.of = of.ok_or_else(|| {
            wrong(
                "of",
                format_args!("whose requests? Such as of=Deployment/web"),
            )
        })?;
        read.bounded()
    }

    fn bounded(self) -> Result<Self, Refusal> {
        if *self.of.namespace() != *self.here {
            return Err(wrong(
                "of",
                format_args!("{} is not in namespace {}", self.of, self.here),
            ));
        }
        for (name, ends) in [("to", &self.to), ("from", &self.from)] {
            if ends.len() > MAX_ENDS {
                return Err(wrong(
                    name,
                    format_args!("is given more than {MAX_ENDS} times"),
                ));
            }
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(wrong(
                "header",
                format_args!("is given more than {MAX_HEADERS} times"),
            ));
        }
        Ok(self)
    }

    /// Ends in other namespaces that stand for any number of pods, each with its parameter. Whether
    /// these fit into a query would reveal how many there are.
    pub(super) fn workloads_elsewhere(&self) -> impl Iterator<Item = (&'static str, &TapEnd)> {
        let to = self.to.iter().map(|end| ("to", end));
        let from = self.from.iter().map(|end| ("from", end));
        to.chain(from).filter(move |(name, end)| {
            let is_one_name = match (name, end) {
                (_, TapEnd::Object(MetricsKind::Pod, _)) => true,
                (name, TapEnd::Object(MetricsKind::Service, _)) => *name == "to",
                (name, TapEnd::Account(_)) => *name == "from",
                (_, TapEnd::Object(..)) => false,
            };
            !is_one_name && *end.namespace() != *self.here
        })
    }

    /// A route names requests to the pods that are watched, and none that they make. Of another
    /// one nothing would ever be shown.
    fn must_name_a_route(
        &self,
        pods: &Pods<'_>,
        watched: &[(Arc<str>, PodId)],
    ) -> Result<(), Refusal> {
        if self.route.is_empty() {
            return Ok(());
        }
        let (of, route, known) = (&self.of, &self.route, pods.routes(watched));
        if known.contains(route.as_str()) {
            return Ok(());
        }
        if known.is_empty() {
            let why = "are distinguished by routes, and those that it makes have none";
            return Err(wrong("route", format_args!("no requests to {of} {why}")));
        }
        let meant = crds::near::hint(route, known.iter().map(|known| &**known));
        let meant = match meant.is_empty() {
            true => "; `weft routes` lists them",
            false => meant.as_str(),
        };
        Err(wrong(
            "route",
            format_args!("no requests to {of} have route {route:?}{meant}"),
        ))
    }

    /// The query to the proxy of each of these pods.
    pub(super) fn tap_request(
        &self,
        pods: &Pods<'_>,
        watched: &[(Arc<str>, PodId)],
    ) -> Result<v1::TapAsk, Refusal> {
        self.must_name_a_route(pods, watched)?;
        let proxies = u32::try_from(watched.len()).unwrap_or(u32::MAX).max(1);
        let mut tap_request = v1::TapAsk {
            method: self.method.clone(),
            path_prefix: self.path.clone(),
            route: self.route.clone(),
            status_first: self.status.0.into(),
            status_last: self.status.1.into(),
            slower: u64::try_from(self.slower.as_micros()).unwrap_or(u64::MAX),
            max_per_second: (self.rate / proxies).max(1),
            headers: self.headers.clone(),
            ..v1::TapAsk::default()
        };
        for end in &self.to {
            match end {
                TapEnd::Object(MetricsKind::Service, service) => {
                    pods.is_there(service, &self.here)?;
                    tap_request.to_services.push(service.to_string());
                }
                end => {
                    let named = pods.named(("to", end), &self.here, |(_, pod)| pod.to_string());
                    tap_request.to_pods.extend(named?);
                }
            }
        }
        for end in &self.from {
            match end {
                TapEnd::Account(account) => tap_request.from_accounts.push(account.to_string()),
                end => {
                    let named = pods.named(("from", end), &self.here, |(uid, _)| uid.to_string());
                    tap_request.from_pods.extend(named?);
                }
            }
        }
        if tap_request.encoded_len() > MAX_QUERY_BYTES {
            let why = "parameters to and from: there are more pods than a query to a proxy holds; \
                       say fewer, or a Service or ServiceAccount, or watch these pods instead";
            return Err(Refusal::bad(why));
        }
        Ok(tap_request)
    }
}

fn method(text: &str) -> Result<String, Refusal> {
    let read = Method::from_bytes(text.as_bytes());
    let read = read.map_err(|_| wrong("method", format_args!("{text:?} is none")))?;
    Ok(read.as_str().to_owned())
}

fn path(text: &str) -> Result<String, Refusal> {
    if !text.starts_with('/') || text.len() > MAX_PATH || text.contains(['?', '#']) {
        return Err(wrong(
            "path",
            format_args!(
                "{text:?} is no beginning of a path: it starts with / and is shown without its \
                 query"
            ),
        ));
    }
    Ok(text.to_owned())
}

fn route(text: &str) -> Result<String, Refusal> {
    if text.is_empty() || text.len() > MAX_PATH {
        return Err(wrong(
            "route",
            format_args!("{text:?} is no name such as GROUP/MATCH, as `weft routes` prints it"),
        ));
    }
    Ok(text.to_owned())
}

/// `503`, `5xx` or `500-599`.
fn status(text: &str) -> Result<(u16, u16), Refusal> {
    let bad = || {
        wrong(
            "status",
            format_args!("{text:?} is no status such as 503, 5xx or 500-504"),
        )
    };
    let number = |text: &str| {
        let number: Option<u16> = text.parse().ok();
        number
            .filter(|number| (100..=599).contains(number))
            .ok_or_else(bad)
    };
    if let Some(class) = text.strip_suffix("xx") {
        let first = number(&format!("{class}00"))?;
        return Ok((first, first + 99));
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(bad());
    }
    Ok((first, last))
}

fn slower(text: &str) -> Result<Duration, Refusal> {
    duration::parse(text).ok_or_else(|| {
        wrong(
            "slower",
            format_args!("{text:?} is no duration such as 200ms"),
        )
    })
}

fn rate(text: &str) -> Result<u32, Refusal> {
    let rate: Option<u32> = text.parse().ok();
    rate.filter(|rate| (1..=RATE.1).contains(rate))
        .ok_or_else(|| {
            let most = RATE.1;
            let nearest = rate.map(|rate| rate.clamp(1, most));
            let nearest =
                nearest.map_or_else(String::new, |rate| format!("; the nearest is {rate}"));
            wrong(
                "maxRps",
                format_args!("{text:?} does not lie between 1 and {most}{nearest}"),
            )
        })
}

fn header(text: &str, visible_headers: &BTreeSet<String>) -> Result<String, Refusal> {
    let name = text.to_ascii_lowercase();
    if visible_headers.contains(&name) {
        return Ok(name);
    }
    let list: Vec<&str> = visible_headers.iter().map(String::as_str).collect();
    let list = list.join(", ");
    Err(wrong(
        "header",
        format_args!(
            "{text:?} is not shown; value observe.tapHeaders of the chart lists what is: {list}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<TapQuery, Refusal> {
        let readable = BTreeSet::from(["user-agent".to_owned()]);
        TapQuery::parse(query, "shop", &readable)
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_name() {
        for (query, name) in [
            ("of=Deployment/web", "watch"),
            ("watch=true", "of"),
            ("watch=true&of=web", "of"),
            ("watch=true&of=Node/a", "of"),
            ("watch=true&of=Deployment/bank/web", "of"),
            ("watch=true&of=Namespace/bank", "of"),
            ("watch=true&of=Pod/web-1&to=cart", "to"),
            ("watch=true&of=Pod/web-1&from=Thing/x", "from"),
            ("watch=true&of=Pod/web-1&method=P%20T", "method"),
            ("watch=true&of=Pod/web-1&path=items", "path"),
            ("watch=true&of=Pod/web-1&path=/a%3Fb", "path"),
            ("watch=true&of=Pod/web-1&route=", "route"),
            ("watch=true&of=Pod/web-1&status=6", "status"),
            ("watch=true&of=Pod/web-1&status=500-400", "status"),
            ("watch=true&of=Pod/web-1&status=9xx", "status"),
            ("watch=true&of=Pod/web-1&status=600", "status"),
            ("watch=true&of=Pod/web-1&slower=long", "slower"),
            ("watch=true&of=Pod/web-1&maxRps=0", "maxRps"),
            ("watch=true&of=Pod/web-1&maxRps=1001", "maxRps"),
            ("watch=true&of=Pod/web-1&header=cookie", "header"),
        ] {
            let refusal = parse(query).unwrap_err();
            assert_eq!(refusal.code, 400, "{query}");
            let words = format!("parameter {name}:");
            assert!(
                refusal.message.starts_with(&words),
                "{query}: {}",
                refusal.message
            );
        }
    }

    #[test]
    fn tap_rate_out_of_bounds_suggests_nearest() {
        for (rate, nearest) in [("0", "1"), ("1001", "1000"), ("4000000000", "1000")] {
            let query = |rate: &str| format!("watch=true&of=Pod/web-1&maxRps={rate}");
            let refusal = parse(&query(rate)).unwrap_err();
            let words = format!("the nearest is {nearest}");
            assert!(refusal.message.ends_with(&words), "{}", refusal.message);
            assert!(parse(&query(nearest)).is_ok(), "{nearest}");
        }
    }

    #[test]
    fn tap_ends_representing_many_foreign_pods_are_recognized() {
        let query = "watch=true&of=Pod/web-1&to=Deployment/api&to=Deployment/bank/api\
                     &to=Service/bank/pay&to=Pod/bank/a&to=ServiceAccount/bank/a\
                     &from=ServiceAccount/bank/a&from=Service/bank/pay&from=Pod/bank/a\
                     &from=Namespace/bank&from=Namespace/shop";
        let read = parse(query).unwrap();
        let found = read.workloads_elsewhere();
        let found: Vec<String> = found.map(|(name, end)| format!("{name} {end}")).collect();
        assert_eq!(
            found,
            [
                "to Deployment bank/api",
                "to ServiceAccount bank/a",
                "from Service bank/pay",
                "from Namespace bank",
            ]
        );
    }

    #[test]
    fn query_is_read() {
        let query = "watch=true&of=Deployment/web&to=Service/bank/pay&from=ServiceAccount/web\
                     &status=5xx&slower=1.5s&maxRps=7&header=User-Agent&path=/items&method=GET&route=cart/read";
        let read = parse(query).unwrap();
        assert_eq!(read.of.to_string(), "Deployment shop/web");
        assert_eq!(read.to[0].to_string(), "Service bank/pay");
        assert_eq!(read.from[0].to_string(), "ServiceAccount shop/web");
        assert_eq!((read.status, read.rate), ((500, 599), 7));
        assert_eq!(read.slower, Duration::from_millis(1500));
        assert_eq!(read.headers, ["user-agent"]);
        assert_eq!(read.method, "GET");
        for of in ["CronJob/report", "Rollout/web"] {
            let read = parse(&format!("watch=true&of={of}")).unwrap();
            assert_eq!(read.of.to_string(), of.replace('/', " shop/"));
        }
        assert_eq!(
            (read.path.as_str(), read.route.as_str()),
            ("/items", "cart/read")
        );
        assert_eq!(status("404").unwrap(), (404, 404));
    }
}
