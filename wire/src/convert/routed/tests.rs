//! Routes of a Service port become messages and back, and bad ones are refused.

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use policy::http_match::{Description, HttpMatch, PathMatch, ValueMatch};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::Match;
use policy::route::cors::{Allowed, Cors};
use policy::route::edits::{
    Actions, Edits, HeaderEdits, MAX_ATTEMPTS, MAX_BACKOFF, PathRewrite, Rewrite, RuleMirror,
    RuleRetry, RuleTimeouts, Scheme,
};
use policy::share::Share;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use prost::Message;
use std::time::Duration;

use super::*;

mod fields;

fn a_name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}"
}

fn a_path() -> impl Strategy<Value = PathMatch> {
    ("/[a-z]{0,4}", 0..4_u8).prop_map(|(text, kind)| match kind {
        0 => PathMatch::Open(text),
        1 => PathMatch::Exact(text),
        2 => PathMatch::Prefix(text),
        _ => PathMatch::Regex(text),
    })
}

fn a_value() -> impl Strategy<Value = (String, ValueMatch)> {
    (a_name(), "[a-z.*]{0,4}", 0..3_u8).prop_filter_map("must compile", |(name, text, kind)| {
        let value = match kind {
            0 => ValueMatch::Each(text),
            1 => ValueMatch::Exact(text),
            _ => ValueMatch::Regex(text),
        };
        let description = Description {
            headers: vec![(name.clone(), value.clone())],
            ..Description::default()
        };
        let one = HttpMatch::described(&mut policy::http_match::Budget::group(), "", description);
        one.ok().map(|_| (name, value))
    })
}

prop_compose! {
    fn a_match()(
        name in "[a-z]{0,4}",
        path in of(a_path()),
        methods in vec(prop_oneof![Just("GET".to_owned()), Just("*".to_owned())], 0..3),
        headers in vec(a_value(), 0..3),
        query in vec(a_value(), 0..3),
    ) -> HttpMatch {
        HttpMatch::as_described(&name, Description { path, methods, headers, query })
    }
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let one = (a_name(), "[ -~]{0,6}").prop_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(&value).unwrap())
    });
    vec(one, 0..3)
}

prop_compose! {
    fn header_edits()(set in headers(), add in headers(), remove in headers()) -> HeaderEdits {
        let remove = remove.into_iter().map(|(name, _)| name).collect();
        HeaderEdits { set, add, remove }
    }
}

fn path_rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![
        a_name().prop_map(PathRewrite::Full),
        (a_name(), "[a-z]{0,3}").prop_map(|(matched, with)| PathRewrite::Prefix { matched, with }),
    ]
}

prop_compose! {
    fn edits()(
        request in header_edits(),
        response in header_edits(),
        rewrite in of((of(a_name()), of(path_rewrite()))),
    ) -> Edits {
        let rewrite = rewrite.map(|(host, path)| Rewrite { host: host.map(Into::into), path });
        Edits { request, response, rewrite }
    }
}

fn a_list() -> impl Strategy<Value = Allowed<HeaderName>> {
    of(headers()).prop_map(|list| match list {
        None => Allowed::Any,
        Some(list) => Allowed::Only(list.into_iter().map(|(name, _)| name).collect()),
    })
}

prop_compose! {
    fn cors()(
        origin in prop_oneof![Just("*"), Just("https://*.shop.example:8443"), Just("http://a")],
        credentials: bool,
        method in of(Just(Method::PUT)),
        headers in a_list(),
        expose in a_list(),
        max_age: u32,
    ) -> Cors {
        Cors {
            origins: vec![origin.parse().unwrap()],
            credentials,
            methods: method.map_or(Allowed::Any, |one| Allowed::Only(vec![one])),
            headers,
            expose,
            max_age,
        }
    }
}

fn some_time() -> impl Strategy<Value = Option<Duration>> {
    of((0..10_000_u64).prop_map(Duration::from_millis))
}

prop_compose! {
    fn a_mirror()(
        namespace in a_name(),
        name in a_name(),
        port in 1_u16..,
        share in 0..=1_000_000_u32,
    ) -> RuleMirror {
        RuleMirror {
            endpoints: crate::names::endpoints(&namespace, &name, port).into(),
            service: ServiceId::new(namespace, name),
            port,
            share: Share::of_millionths(share).unwrap(),
        }
    }
}

prop_compose! {
    fn actions()(
        edits in vec(edits(), 0..3),
        cors in of(cors()),
        mirrors in vec(a_mirror(), 0..2),
        timeouts in of((some_time(), some_time())),
        retry in of((0..=MAX_ATTEMPTS, vec(400..600_u16, 0..3), some_time())),
    ) -> Actions {
        Actions {
            edits,
            cors,
            mirrors,
            timeouts: timeouts
                .map(|(request, backend_request)| RuleTimeouts { request, backend_request }),
            retry: retry.map(|(attempts, codes, backoff)| RuleRetry { attempts, codes, backoff }),
        }
    }
}

prop_compose! {
    fn a_backend()(
        namespace in a_name(),
        name in a_name(),
        port in 1_u16..,
        weight in 1..1000_u32,
        invalid: bool,
        actions in of(actions()),
    ) -> Backend {
        let endpoints = crate::names::endpoints(&namespace, &name, port);
        let service = ServiceId::new(namespace, name);
        let backend = if invalid {
            Backend::invalid(service, port, weight)
        } else {
            Backend::new(service, port, weight, endpoints)
        };
        backend.with_actions(actions.map(Arc::new))
    }
}

prop_compose! {
    fn a_redirect()(
        secure in of(any::<bool>()),
        host in of(a_name()),
        port in of(1_u16..),
        path in of(path_rewrite()),
        status in prop_oneof![Just(StatusCode::FOUND), Just(StatusCode::PERMANENT_REDIRECT)],
        response in header_edits(),
        cors in of(cors()),
    ) -> Redirect {
        let scheme = secure.map(|secure| if secure { Scheme::Https } else { Scheme::Http });
        Redirect { scheme, host: host.map(Into::into), port, path, status, response, cors }
    }
}

fn a_forward() -> impl Strategy<Value = Forward> {
    prop_oneof![
        Just(Forward::Root),
        Just(Forward::Refuse(Reason::NoRoute)),
        Just(Forward::Refuse(Reason::InvalidRoute)),
        vec(a_backend(), 1..3).prop_map(Forward::Split),
        a_redirect().prop_map(|redirect| Forward::Redirect(Arc::new(redirect))),
    ]
}

prop_compose! {
    fn a_rule()(
        name in a_name(),
        rule in of(a_name()),
        matches in of(vec(a_match(), 0..3)),
        then in a_forward(),
    ) -> Rule<Forward> {
        let origin = Origin::new("HTTPRoute", "shop", name);
        Rule {
            origin: rule.map_or(origin.clone(), |rule| origin.rule(&rule)),
            when: matches.map_or(Match::Always, Match::AnyOf),
            then,
        }
    }
}

proptest! {
    #[test]
    fn routes_survive_the_way_over_the_wire(mut rules in vec(a_rule(), 0..4), again: bool) {
        // The same action in several rules is sent once.
        if again {
            rules.extend_from_within(..);
        }
        let table = Table { rules, otherwise: Forward::Root };
        let message = routed_service_message(v1::Service::default(), &table);
        for (at, action) in message.actions.iter().enumerate() {
            prop_assert!(!message.actions[..at].contains(action));
        }
        let bytes = message.encode_to_vec();
        let message = v1::RoutedService::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(routed_service(&message), Ok(table));
    }

    /// Whatever bytes arrive, reading them ends in a value or in a refusal.
    #[test]
    fn no_bytes_make_reading_of_routes_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = v1::RoutedService::decode(bytes.as_slice()) {
            let _ = routed_service(&message);
        }
    }
}
