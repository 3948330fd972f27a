//! Restricts a policy to one Service port, and measures how much it makes the port's rules grow.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use policy::{
    name::ServiceId,
    traffic::{
        Policy, Section, Sections, Sources,
        call::{FallbackTo, Mirror, Override},
    },
};

use crate::{
    model::{ServiceEntry, published},
    world::ObjectKey,
};

/// Bytes of a rule beside its routes, its sources and the texts in its section.
const RULE: usize = 128;

/// The policy without what would lead calls back to where they come from, or to a Service
/// that has no such port: one policy may be about many Services. The next one decides then.
pub(super) fn scoped<'a>(
    policy: &'a Policy,
    key: &ObjectKey,
    port: u16,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
) -> Cow<'a, Policy> {
    match sections(policy, key, port, services) {
        Cow::Borrowed(_) => Cow::Borrowed(policy),
        Cow::Owned(sections) => Cow::Owned(Policy {
            sections,
            ..policy.clone()
        }),
    }
}

/// The sections that this policy sets. Its routes and sources, which may be thousands, are not
/// copied for it.
pub(super) fn says(
    policy: &Policy,
    key: &ObjectKey,
    port: u16,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
) -> Vec<Section> {
    let sections = sections(policy, key, port, services);
    policy.says(&sections).collect()
}

/// What is left of the sections there.
fn sections<'a>(
    policy: &'a Policy,
    key: &ObjectKey,
    port: u16,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
) -> Cow<'a, Sections> {
    let leads = |service: &ServiceId| {
        let other = ObjectKey {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        };
        let entry = services.get(&other);
        other != *key && entry.is_some_and(|entry| entry.ports.contains_key(&port))
    };
    let written = &policy.sections;
    let fallback = written.fallback.as_deref();
    let fallback = match fallback.map(|fallback| &fallback.to) {
        Some(FallbackTo::Service(service)) => leads(service),
        Some(FallbackTo::Response(_)) | None => true,
    };
    let mirrors = written.mirror.as_deref().unwrap_or_default();
    let mirror = mirrors.iter().all(|mirror| leads(&mirror.service));
    if fallback && mirror {
        return Cow::Borrowed(written);
    }
    let mut changed = written.clone();
    if !fallback {
        changed.fallback = None;
    }
    if !mirror {
        let left = mirrors.iter().filter(|mirror| leads(&mirror.service));
        let left: Arc<[Mirror]> = left.cloned().collect();
        changed.mirror = (!left.is_empty()).then_some(left);
    }
    Cow::Owned(changed)
}

/// About how many bytes the rules of a policy take at one port, which repeat its routes and
/// sources for every section that they limit. `routes`: what the matches take once.
pub(super) fn bytes(policy: &Policy, routes: usize) -> usize {
    let sections = &policy.sections;
    let sources = match &policy.sources {
        Sources::Everyone => 0,
        Sources::Only(sources) => published::sources_len(sources),
    };
    let named = policy.origin.namespace().len() + policy.origin.name().len();
    let rule = RULE + named + routes + sources;
    let written = Section::ALL
        .into_iter()
        .filter(|section| *section != Section::RateLimits);
    let written = written.filter(|section| sections.has(*section)).count();
    let rules = rule * (written + sections.rate_limits.len());
    let fallback = sections.fallback.as_deref();
    let fallback = fallback.map_or(0, |fallback| match &fallback.to {
        FallbackTo::Service(service) => name_len(service),
        FallbackTo::Response(response) => {
            let headers = response.headers.iter();
            let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 8);
            response.body.len() + headers.sum::<usize>()
        }
    });
    let mirrors = sections.mirror.iter().flat_map(|all| all.iter());
    let mirrors = mirrors.map(|mirror| {
        let open = mirror.allow_tcp.iter().map(|one| name_len(&one.service));
        RULE + name_len(&mirror.service) + open.sum::<usize>()
    });
    let overrides = sections.overrides.iter().flat_map(|all| all.iter());
    rules + fallback + mirrors.sum::<usize>() + overrides.map(override_len).sum::<usize>()
}

fn override_len(one: &Override) -> usize {
    let to = one.to.iter().map(name_len).sum::<usize>();
    let callers = published::sources_len(&one.sources) + published::sources_len(&one.forwarders);
    to + callers + one.tokens.len() * size_of::<policy::traffic::call::Token>()
}

fn name_len(service: &ServiceId) -> usize {
    service.namespace.len() + service.name.len() + 8
}
