//! Reads a Service port in a batch: its splits, or the routes that hold for it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::{Forward, Rule, Table};
use wire::{convert, v1};

use crate::config::apply::lists::port_of;
use crate::config::snapshot::Service;
use crate::endpoints::registry::Registry;

/// A Service port with its splits. `name`: of the resource.
pub(super) fn service_of(
    name: &str,
    service: &v1::Service,
    registry: &Registry,
) -> Result<Service, String> {
    let port = port_of("port", service.port)?;
    let rules = service
        .splits
        .iter()
        .map(|split| convert::split(split, port).map(|rule| rule.map(Forward::split)))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let backends = service.splits.iter().flat_map(|split| &split.backends);
    let backends = backends.map(|backend| backend.endpoints.as_str().into());
    with_rules(name, service, (rules, backends.collect()), registry)
}

/// A Service port with its routes, and the splits that hold beside them.
pub(super) fn routed_service_of(
    name: &str,
    routed: &v1::RoutedService,
    registry: &Registry,
) -> Result<Service, String> {
    let service = routed.service.as_ref().ok_or("service is missing")?;
    let table = convert::routed_service(routed).map_err(|bad| bad.to_string())?;
    let backends = lead_to(&table.rules);
    with_rules(name, service, (table.rules, backends), registry)
}

/// Names of the endpoints that calls and copies of them may go to.
fn lead_to(rules: &[Rule<Forward>]) -> Vec<Arc<str>> {
    let splits = rules.iter().filter_map(|rule| match &rule.then {
        Forward::Split(backends) => Some(backends),
        Forward::Root | Forward::Refuse(_) | Forward::Redirect(_) => None,
    });
    let mut names = BTreeSet::new();
    for backend in splits.flatten() {
        // An invalid one has none.
        if !backend.endpoints.is_empty() {
            names.insert(Arc::clone(&backend.endpoints));
        }
        let actions = backend.actions.iter();
        let mirrors = actions.flat_map(|actions| &actions.mirrors);
        names.extend(mirrors.map(|mirror| Arc::clone(&mirror.endpoints)));
    }
    names.into_iter().collect()
}

fn with_rules(
    name: &str,
    service: &v1::Service,
    (rules, backends): (Vec<Rule<Forward>>, Vec<Arc<str>>),
    registry: &Registry,
) -> Result<Service, String> {
    Ok(Service {
        id: ServiceId {
            namespace: service.namespace.as_str().into(),
            name: service.name.as_str().into(),
        },
        label: format!("{}/{}", service.namespace, service.name).into(),
        port: port_of("port", service.port)?,
        protocol: convert::protocol(service.protocol),
        affinity: registry.affinity(name, service.affinity_seconds),
        objects: objects_of(&rules),
        routes: Table {
            rules,
            otherwise: Forward::Root,
        },
        endpoints: service.endpoints.as_str().into(),
        backends,
    })
}

/// The object of each rule, one value for all rules of one.
fn objects_of(rules: &[Rule<Forward>]) -> Vec<Origin> {
    let mut known: HashSet<Origin> = HashSet::new();
    let objects = rules.iter().map(|rule| {
        let origin = &rule.origin;
        let object = if origin.rule_name().is_some() {
            let (namespace, name) = (Arc::clone(origin.namespace()), Arc::clone(origin.name()));
            Origin::new(origin.kind(), namespace, name)
        } else {
            origin.clone()
        };
        if let Some(object) = known.get(&object) {
            return object.clone();
        }
        known.insert(object.clone());
        object
    });
    objects.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use http::StatusCode;
    use policy::reason::Reason;
    use policy::route::edits::{Actions, HeaderEdits, Redirect, RuleMirror};
    use policy::route::{Backend, Match};
    use policy::share::Share;
    use wire::v1::resource::Content;

    use super::*;
    use crate::config::snapshot::Snapshot;

    fn name() -> String {
        wire::names::service("shop", "api", 80)
    }

    fn message() -> v1::Service {
        v1::Service {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
            port: 80,
            endpoints: wire::names::endpoints("shop", "api", 80),
            ..v1::Service::default()
        }
    }

    fn rule(route: &str, place: &str, then: Forward) -> Rule<Forward> {
        Rule {
            origin: Origin::new("HTTPRoute", "shop", route).rule(place),
            when: Match::every_request(),
            then,
        }
    }

    fn backends() -> Vec<Backend> {
        let service = |name| ServiceId::new("shop", name);
        let mirror = RuleMirror {
            service: service("copy"),
            port: 81,
            endpoints: "endpoints/shop/copy:81".into(),
            share: Share::ALL,
        };
        let actions = Actions {
            mirrors: vec![mirror],
            ..Actions::default()
        };
        vec![
            Backend::new(service("v2"), 8080, 1, "endpoints/shop/v2:8080")
                .with_actions(Some(Arc::new(actions))),
            Backend::invalid(service("none"), 80, 1),
        ]
    }

    fn routed(rules: Vec<Rule<Forward>>) -> v1::RoutedService {
        let table = Table {
            rules,
            otherwise: Forward::Root,
        };
        convert::routed_service_message(message(), &table)
    }

    fn everything() -> v1::RoutedService {
        let redirect = Redirect {
            scheme: None,
            host: Some("shop.example".into()),
            port: None,
            path: None,
            status: StatusCode::FOUND,
            response: HeaderEdits::default(),
            cors: None,
        };
        routed(vec![
            rule("web", "0", Forward::Split(backends())),
            rule("other", "0", Forward::Redirect(Arc::new(redirect))),
            rule("web", "1", Forward::Split(backends())),
            rule("web", "", Forward::Refuse(Reason::NoRoute)),
        ])
    }

    /// A resource of every form of rule.
    pub(crate) fn sample() -> (String, Content) {
        (name(), Content::RoutedService(everything()))
    }

    fn resource(content: Content) -> v1::Resource {
        wire::version::stamp(v1::Resource {
            name: name(),
            version: String::new(),
            content: Some(content),
        })
    }

    /// The next snapshot, and how many resources were refused.
    fn after(before: &Snapshot, content: Content) -> (Snapshot, usize) {
        let batch = v1::Batch {
            set: vec![resource(content)],
            ..v1::Batch::default()
        };
        let (next, nacks) = before.after(batch, &Registry::default());
        (next, nacks.len())
    }

    #[test]
    fn routes_replace_splits_under_the_same_name_and_back() {
        let name = name();
        let rules = |now: &Snapshot| now.services[name.as_str()].routes.rules.len();
        let plain = Content::Service(message());
        let (split, refused) = after(&Snapshot::default(), plain.clone());
        assert_eq!((rules(&split), refused), (0, 0));
        let (routes, refused) = after(&split, Content::RoutedService(everything()));
        assert_eq!((rules(&routes), refused), (4, 0));
        let (back, refused) = after(&routes, plain);
        assert_eq!((rules(&back), refused), (0, 0));
        let batch = v1::Batch {
            remove: vec![name.clone()],
            ..v1::Batch::default()
        };
        let (none, _) = routes.after(batch, &Registry::default());
        assert!(none.services.is_empty());
    }

    #[test]
    fn refused_routes_leave_the_former_ones() {
        let name = name();
        let (before, _) = after(&Snapshot::default(), Content::RoutedService(everything()));
        let mut unknown_action = everything();
        unknown_action.rules[0].action = 99;
        let no_service = v1::RoutedService {
            service: None,
            ..everything()
        };
        for wrong in [unknown_action, no_service] {
            let (now, refused) = after(&before, Content::RoutedService(wrong));
            assert_eq!(refused, 1);
            assert!(Arc::ptr_eq(
                &now.services[name.as_str()],
                &before.services[name.as_str()]
            ));
        }
    }

    #[test]
    fn rules_count_by_object_and_lead_to_copies() {
        let registry = Registry::default();
        let service = routed_service_of(&name(), &everything(), &registry).unwrap();
        let objects = service.objects.iter().map(ToString::to_string);
        assert_eq!(
            objects.collect::<Vec<_>>(),
            [
                "HTTPRoute shop/web",
                "HTTPRoute shop/other",
                "HTTPRoute shop/web",
                "HTTPRoute shop/web"
            ]
        );
        let backends: Vec<&str> = service.backends.iter().map(|name| &**name).collect();
        assert_eq!(
            backends,
            ["endpoints/shop/copy:81", "endpoints/shop/v2:8080"]
        );
    }
}
