//! The filters of a rule or of a backend: what is done to requests and their answers.
//!
//! A filter is carried out as it is written, or its rule is broken: a rule that lost one of them
//! would serve requests that its author did not want served like that.

mod cors;
mod headers;
mod url;

use std::collections::BTreeSet;

use policy::{
    route::{
        cors::Cors,
        edits::{Edits, Redirect},
    },
    share::Share,
};

use super::target::{self, BackendTarget};
use crate::reader::{Broken, Field, Object, shown};

/// What is done to requests and their answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleFilters {
    /// Headers, host and path.
    pub edits: Edits,
    /// Who may read the answers from pages of other origins.
    pub cors: Option<Cors>,
    /// The answer in place of the backends'. It holds the edits of answers and `cors`, too.
    pub redirect: Option<Redirect>,
    /// Who gets copies.
    pub mirrors: Vec<MirrorRef>,
}

/// A Service that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRef {
    /// What it refers to.
    pub target: BackendTarget,
    /// Which part of the requests.
    pub share: Share,
}

/// Where filters stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Namespace of the route.
    pub(super) namespace: &'a str,
    /// Which filters may stand there.
    pub(super) allowed: &'a [Filter],
    /// The prefix by which the rule's only match compares paths, if it does.
    pub(super) prefix: Option<&'a str>,
}

/// A type of filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    RequestHeaders,
    ResponseHeaders,
    Mirror,
    Rewrite,
    Redirect,
    Cors,
}

/// Of a rule of an HTTPRoute.
pub(super) const OF_RULE: [Filter; 6] = [
    Filter::RequestHeaders,
    Filter::ResponseHeaders,
    Filter::Mirror,
    Filter::Rewrite,
    Filter::Redirect,
    Filter::Cors,
];
/// Of a backend of an HTTPRoute.
pub(super) const OF_BACKEND: [Filter; 4] = [
    Filter::RequestHeaders,
    Filter::ResponseHeaders,
    Filter::Mirror,
    Filter::Rewrite,
];
/// Of a rule of a GRPCRoute, and of its backends.
pub(super) const OF_GRPC: [Filter; 3] = [
    Filter::RequestHeaders,
    Filter::ResponseHeaders,
    Filter::Mirror,
];

impl Filter {
    /// Its `type`, and the field with its content.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::RequestHeaders => ("RequestHeaderModifier", "requestHeaderModifier"),
            Self::ResponseHeaders => ("ResponseHeaderModifier", "responseHeaderModifier"),
            Self::Mirror => ("RequestMirror", "requestMirror"),
            Self::Rewrite => ("URLRewrite", "urlRewrite"),
            Self::Redirect => ("RequestRedirect", "requestRedirect"),
            Self::Cors => ("CORS", "cors"),
        }
    }
}

/// Reads the filters of one list.
pub(super) fn read(list: &[Field<'_>], place: &Place<'_>) -> Result<RuleFilters, Broken> {
    let mut filters = RuleFilters::default();
    let mut seen = BTreeSet::new();
    for field in list {
        let (filter, content) = named(field, place)?;
        let (name, _) = filter.names();
        if filter != Filter::Mirror && !seen.insert(filter) {
            return Err(field.broken(format!("is a second {name}; leave one of them out")));
        }
        if seen.contains(&Filter::Rewrite) && seen.contains(&Filter::Redirect) {
            let text = "stands beside a filter that it excludes: leave out URLRewrite or \
                        RequestRedirect";
            return Err(field.broken(text));
        }
        match filter {
            Filter::RequestHeaders => filters.edits.request = headers::edits(&content)?,
            Filter::ResponseHeaders => filters.edits.response = headers::edits(&content)?,
            Filter::Mirror => filters.mirrors.push(mirror(&content, place.namespace)?),
            Filter::Rewrite => filters.edits.rewrite = Some(url::rewrite(&content, place.prefix)?),
            Filter::Redirect => filters.redirect = Some(url::redirect(&content, place.prefix)?),
            Filter::Cors => filters.cors = Some(cors::read(&content)?),
        }
    }
    if let Some(redirect) = &mut filters.redirect {
        redirect.response = filters.edits.response.clone();
        redirect.cors = filters.cors.clone();
    }
    Ok(filters)
}

/// The type of a filter that may stand at a place, and its content.
fn named<'a>(field: &Field<'a>, place: &Place<'_>) -> Result<(Filter, Object<'a>), Broken> {
    let written = field.object()?;
    let kind = written.need("type")?.text()?;
    let mut allowed = place.allowed.iter();
    let Some(filter) = allowed.find(|filter| filter.names().0 == kind) else {
        let names: Vec<&str> = place.allowed.iter().map(|one| one.names().0).collect();
        let (kind, names) = (shown(kind), names.join(", "));
        let text = format!("is of type {kind:?}, but Weft carries out {names} only at this place");
        return Err(field.broken(text));
    };
    let (_, content) = filter.names();
    written.only(&["type", content])?;
    Ok((*filter, written.need(content)?.object()?))
}

fn mirror(content: &Object<'_>, namespace: &str) -> Result<MirrorRef, Broken> {
    content.only(&["backendRef", "percent", "fraction"])?;
    let backend = content.need("backendRef")?.object()?;
    backend.only(&target::FIELDS)?;
    let target = BackendTarget::read(&backend, namespace)?;
    let percent = content.read("percent", |percent| percent.number(&(0..=100_u32)))?;
    let part = content.read("fraction", |part| fraction(&part.object()?))?;
    let (numerator, denominator) = match (percent, part) {
        (Some(_), Some(_)) => {
            return Err(content.broken("has percent and fraction; leave one of them out"));
        }
        (Some(percent), None) => (percent, 100),
        (None, Some(part)) => part,
        (None, None) => (1, 1),
    };
    Ok(MirrorRef {
        target,
        share: share(numerator, denominator),
    })
}

/// Numerator and denominator.
fn fraction(part: &Object<'_>) -> Result<(u32, u32), Broken> {
    const MOST: u32 = i32::MAX.unsigned_abs();
    part.only(&["numerator", "denominator"])?;
    let numerator = part.need("numerator")?;
    let denominator = part.read("denominator", |field| field.number(&(1..=MOST)))?;
    let denominator = denominator.unwrap_or(100);
    Ok((numerator.number(&(0..=denominator))?, denominator))
}

/// In millionths; of what is less than one, but not nothing, one.
fn share(numerator: u32, denominator: u32) -> Share {
    let (part, whole) = (u64::from(numerator), u64::from(denominator.max(1)));
    let millionths = part * u64::from(Share::ALL.millionths()) / whole;
    let millionths = u32::try_from(millionths.max(part.min(1)));
    millionths
        .ok()
        .and_then(Share::of_millionths)
        .unwrap_or(Share::ALL)
}
