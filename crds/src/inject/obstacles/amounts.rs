//! The proxy's request and limit of one resource, compared with a LimitRange or a ResourceQuota.

use serde_json::Value;

use super::demand::{PodDemand, RESOURCES, Resource, sum};
use crate::inject::overrides;
use crate::inject::overrides::{DefaultLimits, Namespace};
use crate::labels::quantity_in_milli;

/// What each of the proxy's containers requests of one resource.
pub(super) struct Amounts {
    resource: &'static str,
    namespace: String,
    request: String,
    limit: Option<String>,
    /// Annotations that set request and limit.
    annotations: [&'static str; 2],
    /// The pod has them itself, and they go before those of its Namespace.
    by_pod: [bool; 2],
    /// Request and limit of the other containers of the pod together, in thousandths; `None`
    /// where they are not known.
    others: Option<[Option<i128>; 2]>,
    /// The pod as a whole has a limit, which bounds containers without one.
    is_bounded_as_whole: bool,
}

impl Amounts {
    /// Of a pod without annotations of its own: cpu and memory.
    pub(super) fn of_namespace(namespace: &Namespace, defaults: &DefaultLimits) -> [Self; 2] {
        let of = |(resource, annotations): Resource, request: &str, limit| {
            let [own_request, own_limit] =
                annotations.map(|name| namespace.annotations.get(name).cloned());
            let request = own_request.unwrap_or_else(|| request.to_owned());
            let limit = overrides::limited(own_limit, limit, &request);
            Self {
                resource,
                namespace: namespace.name.clone(),
                request,
                limit,
                annotations,
                by_pod: [false; 2],
                others: None,
                is_bounded_as_whole: false,
            }
        };
        let [cpu, memory] = RESOURCES;
        let limits = [defaults.cpu.as_deref(), defaults.memory.as_deref()];
        [
            of(cpu, overrides::CPU_REQUEST, limits[0]),
            of(memory, overrides::MEMORY_REQUEST, limits[1]),
        ]
    }

    /// Of a pod as it is.
    pub(super) fn of_pod(namespace: &Namespace, demand: &PodDemand) -> [Self; 2] {
        [0, 1].map(|at| {
            let (resource, annotations) = RESOURCES[at];
            let asked = &demand.asked[at];
            Self {
                resource,
                namespace: namespace.name.clone(),
                request: asked.request.clone().unwrap_or_default(),
                limit: asked.limit.clone(),
                annotations,
                by_pod: asked.by_pod,
                others: asked.others,
                is_bounded_as_whole: asked.is_bounded_as_whole,
            }
        })
    }

    /// A LimitRange gives a container that has no limit its default, or its maximum.
    pub(super) fn fill(&mut self, items: &[(&str, &Value)]) {
        if self.limit.is_some() {
            return;
        }
        let defaults = items.iter().map(|(_, item)| *item);
        let defaults = defaults.flat_map(|item| [&item["default"], &item["max"]]);
        let resource = self.resource;
        let mut limits = defaults.filter_map(|of| of[resource].as_str());
        self.limit = limits.next().map(ToOwned::to_owned);
    }

    /// The way out, of request or limit.
    fn annotate(&self, which: usize, amount: &str) -> String {
        let (annotation, on) = (self.annotations[which], self.on(self.by_pod[which]));
        format!("set annotation {annotation} of {on} to {amount}")
    }

    /// What has the annotation that counts.
    fn on(&self, by_pod: bool) -> String {
        if by_pod {
            return "the pod".to_owned();
        }
        format!("Namespace {}", self.namespace)
    }

    /// The way out by both annotations.
    fn annotate_both(&self) -> String {
        let [request, limit] = self.annotations;
        let on = self.on(self.by_pod[0] || self.by_pod[1]);
        format!("set annotations {request} and {limit} of {on}")
    }

    /// What one entry of a LimitRange refuses.
    pub(super) fn against(&self, range: &str, item: &Value) -> Vec<String> {
        let Self {
            resource, request, ..
        } = self;
        let bound = |of: &str| item[of][*resource].as_str();
        let is_less = |one: &str, other: &str| {
            matches!(
                (quantity_in_milli(one), quantity_in_milli(other)),
                (Some(one), Some(other)) if one < other
            )
        };
        let mut found = Vec::new();
        if let Some(min) = bound("min").filter(|min| is_less(request, min)) {
            found.push(format!(
                "LimitRange {range} asks for {resource} of {min} at least, and the proxy's request \
                 is {request}: {}",
                self.annotate(0, &format!("{min} or more"))
            ));
        }
        let limit = self.limit.as_deref().unwrap_or(request);
        let max = bound("max").filter(|max| is_less(max, limit) || is_less(max, request));
        if let Some(max) = max {
            let (which, what, amount) = if is_less(max, request) {
                (0, "request", request.as_str())
            } else {
                (1, "limit", limit)
            };
            found.push(format!(
                "LimitRange {range} allows {resource} of {max} at most, and the proxy's {what} is \
                 {amount}: {}",
                self.annotate(which, &format!("{max} or less"))
            ));
        }
        if let Some(ratio) = bound("maxLimitRequestRatio")
            && self.is_beyond(ratio)
        {
            let limit = self.limit.as_deref().unwrap_or("none");
            found.push(format!(
                "LimitRange {range} allows a limit of {resource} of {ratio} times the request, and \
                 the proxy's request is {request} and its limit {limit}: {}",
                self.annotate_both()
            ));
        }
        found
    }

    /// Whether the limit is more than so many times the request, or there is none.
    fn is_beyond(&self, ratio: &str) -> bool {
        let Some(limit) = self.limit.as_deref() else {
            return true;
        };
        let read = [limit, &self.request, ratio].map(quantity_in_milli);
        let [Some(limit), Some(request), Some(ratio)] = read else {
            return false;
        };
        let most = request.checked_mul(ratio);
        let limit = limit.checked_mul(1000);
        matches!((limit, most), (Some(limit), Some(most)) if limit > most)
    }

    /// A default limit below the request makes the pod invalid.
    pub(super) fn above_limit(&self) -> Option<String> {
        let limit = self.limit.as_deref()?;
        let (Some(request), Some(most)) =
            (quantity_in_milli(&self.request), quantity_in_milli(limit))
        else {
            return None;
        };
        (request > most).then(|| {
            format!(
                "the proxy's request of {} is {}, above its limit {limit}: {}",
                self.resource,
                self.request,
                self.annotate(1, &format!("{} or more", self.request))
            )
        })
    }

    /// What an entry of a LimitRange about whole pods refuses because of the proxy. Where it is
    /// not known what the others have, that is what leaves no room for the proxy alone.
    pub(super) fn in_pod(&self, range: &str, item: &Value) -> Option<String> {
        let rules: &[Rule] = match self.others {
            Some(_) => &[Rule::Min, Rule::Max, Rule::Ratio],
            None => &[Rule::Max],
        };
        let others = self.others.unwrap_or([Some(0), Some(0)]);
        let own = [Some(&self.request), self.limit.as_ref()];
        let own = own.map(|amount| quantity_in_milli(amount?));
        let whole = [0, 1].map(|at| sum(others[at], own[at]));
        let resource = self.resource;
        let broken = rules.iter().find_map(|rule| {
            let text = item[rule.field()][resource].as_str()?;
            let bound = quantity_in_milli(text)?;
            let is_new = rule.refuses(whole, bound) && !rule.refuses(others, bound);
            is_new.then(|| rule.sentence(resource, text))
        })?;
        Some(format!(
            "LimitRange {range} {broken}, which the proxy breaks with its request of {} and limit \
             of {}: {}",
            self.request,
            self.limit.as_deref().unwrap_or("none"),
            self.annotate_both()
        ))
    }

    /// A quota on limits admits no container without one.
    pub(super) fn within(&self, name: &str, quota: &Value) -> Option<String> {
        let counted = format!("limits.{}", self.resource);
        let is_bounded = self.limit.is_some() || self.is_bounded_as_whole;
        if is_bounded || quota["spec"]["hard"][&counted].is_null() {
            return None;
        }
        Some(format!(
            "ResourceQuota {name} counts {counted}, and the proxy has no such limit: set annotation \
             {} of {}",
            self.annotations[1],
            self.on(self.by_pod[1])
        ))
    }
}

/// A bound of a LimitRange for a whole pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Min,
    Max,
    Ratio,
}

impl Rule {
    const fn field(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Ratio => "maxLimitRequestRatio",
        }
    }

    fn sentence(self, resource: &str, bound: &str) -> String {
        match self {
            Self::Min => format!("requires {resource} of {bound} at least of a pod"),
            Self::Max => format!("allows a pod {resource} of {bound} at most"),
            Self::Ratio => {
                format!("allows a pod a limit of {resource} of {bound} times its request")
            }
        }
    }

    /// As Kubernetes does, of the request and the limit of all containers together.
    fn refuses(self, [request, limit]: [Option<i128>; 2], bound: i128) -> bool {
        match self {
            Self::Min => {
                request.is_none_or(|request| request < bound)
                    || limit.is_some_and(|limit| limit < bound)
            }
            Self::Max => {
                limit.is_none_or(|limit| limit > bound)
                    || request.is_some_and(|request| request > bound)
            }
            Self::Ratio => match (request, limit) {
                (Some(request @ 1..), Some(limit @ 1..)) => {
                    limit.saturating_mul(1000) > request.saturating_mul(bound)
                }
                _ => true,
            },
        }
    }
}
