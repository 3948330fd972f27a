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
use crate::capability::Capabilities;

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

/// A rule with all that there is.
fn whole() -> v1::RoutedService {
    let header = |name: &str| v1::Header {
        name: name.to_owned(),
        value: b"v".to_vec(),
    };
    let headers = v1::HeaderEdits {
        set: vec![header("x-set")],
        add: vec![header("x-add")],
        remove: vec!["x-gone".to_owned()],
    };
    let cors = v1::Cors {
        origins: vec!["*".to_owned()],
        methods: Some(v1::Allowed {
            any: false,
            only: vec!["GET".to_owned()],
        }),
        ..v1::Cors::default()
    };
    let path = v1::PathRewrite {
        how: Some(v1::path_rewrite::How::Full("/x".to_owned())),
    };
    let actions = v1::CallActions {
        edits: vec![v1::Edits {
            request: Some(headers.clone()),
            response: Some(headers.clone()),
            rewrite: Some(v1::Rewrite {
                host: None,
                path: Some(path.clone()),
            }),
        }],
        cors: Some(cors.clone()),
        mirrors: vec![v1::RuleMirror {
            namespace: "shop".to_owned(),
            service: "next".to_owned(),
            port: 80,
            endpoints: "endpoints/shop/next:80".to_owned(),
            share: 1,
        }],
        timeouts: None,
        retry: Some(v1::RuleRetry {
            attempts: 1,
            codes: vec![503],
            backoff: Some(1),
        }),
    };
    let backend = v1::RouteBackend {
        namespace: "shop".to_owned(),
        service: "v1".to_owned(),
        port: 80,
        weight: 1,
        endpoints: "endpoints/shop/v1:80".to_owned(),
        invalid: false,
        actions: Some(actions),
    };
    let redirect = v1::RouteRedirect {
        status: 302,
        path: Some(path),
        response: Some(headers),
        cors: Some(cors),
        ..v1::RouteRedirect::default()
    };
    let backends = vec![backend];
    let kinds = [
        What::Backends(v1::RouteBackends { backends }),
        What::Redirect(redirect),
        What::Refuse("no-route".to_owned()),
    ];
    let rule = v1::RouteRule {
        origin: Some((&Origin::new("HTTPRoute", "shop", "web")).into()),
        rule: "0".to_owned(),
        matches: Some(v1::HttpMatches {
            matches: vec![v1::HttpMatch {
                path_regex: Some("/a".to_owned()),
                headers: vec![v1::HeaderMatch::default()],
                query: vec![v1::HeaderMatch::default()],
                ..v1::HttpMatch::default()
            }],
        }),
        action: 0,
    };
    let mut message = v1::RoutedService {
        service: None,
        actions: kinds
            .map(|what| v1::RouteAction { what: Some(what) })
            .into(),
        rules: vec![rule],
    };
    message.rules[0].matches.as_mut().unwrap().matches[0].headers[0].name = "x".to_owned();
    message
}

/// The field of a refusal, after a change.
fn refused(change: impl FnOnce(&mut v1::RoutedService)) -> String {
    let mut message = whole();
    change(&mut message);
    routed_service(&message).unwrap_err().field
}

fn backend(message: &mut v1::RoutedService) -> &mut v1::RouteBackend {
    match &mut message.actions[0].what {
        Some(What::Backends(list)) => &mut list.backends[0],
        other => panic!("{other:?}"),
    }
}

fn call(message: &mut v1::RoutedService) -> &mut v1::CallActions {
    backend(message).actions.as_mut().unwrap()
}

fn redirect(message: &mut v1::RoutedService) -> &mut v1::RouteRedirect {
    match &mut message.actions[1].what {
        Some(What::Redirect(one)) => one,
        other => panic!("{other:?}"),
    }
}

fn one(message: &mut v1::RoutedService) -> &mut v1::HttpMatch {
    &mut message.rules[0].matches.as_mut().unwrap().matches[0]
}

#[test]
fn bad_rule_or_match_refuses_naming_its_field() {
    assert!(routed_service(&whole()).is_ok());
    assert_eq!(refused(|all| all.rules[0].action = 3), "rules[0].action");
    assert_eq!(refused(|all| all.rules[0].origin = None), "rules[0].origin");
    let at = "rules[0].matches.matches[0]";
    let field = refused(|all| one(all).path_regex = Some("(".to_owned()));
    assert_eq!(field, format!("{at}.pathRegex"));
    assert_eq!(
        refused(|all| one(all).path_kind = 9),
        format!("{at}.pathKind")
    );
    let field = refused(|all| one(all).headers[0].kind = 9);
    assert_eq!(field, format!("{at}.headers[0].kind"));
    let field = refused(|all| one(all).query[0].kind = 9);
    assert_eq!(field, format!("{at}.query[0].kind"));
}

#[test]
fn bad_action_refuses_naming_its_field() {
    assert_eq!(refused(|all| all.actions[2].what = None), "actions[2].what");
    let unknown = Some(What::Refuse("of-tomorrow".to_owned()));
    assert_eq!(
        refused(|all| all.actions[2].what = unknown),
        "actions[2].refuse"
    );
    let root = Some(What::Root(false));
    assert_eq!(refused(|all| all.actions[2].what = root), "actions[2].what");
    let at = "actions[0].backends[0]";
    assert_eq!(refused(|all| backend(all).port = 0), format!("{at}.port"));
    assert_eq!(
        refused(|all| backend(all).service.clear()),
        format!("{at}.service")
    );
    let field = refused(|all| backend(all).endpoints.clear());
    assert_eq!(field, format!("{at}.endpoints"));
    let at = format!("{at}.actions");
    let field = refused(|all| call(all).retry.as_mut().unwrap().codes[0] = 200);
    assert_eq!(field, format!("{at}.retry.codes[0]"));
    let field = refused(|all| call(all).retry.as_mut().unwrap().attempts = 11);
    assert_eq!(field, format!("{at}.retry.attempts"));
    let field = refused(|all| call(all).retry.as_mut().unwrap().backoff = Some(10_001));
    assert_eq!(field, format!("{at}.retry.backoff"));
    let field = refused(|all| call(all).mirrors[0].share = 1_000_001);
    assert_eq!(field, format!("{at}.mirrors[0].share"));
    let field = refused(|all| call(all).cors.as_mut().unwrap().origins[0] = "a".to_owned());
    assert_eq!(field, format!("{at}.cors.origins[0]"));
    let field = refused(|all| {
        let request = &mut call(all).edits[0].request;
        request.as_mut().unwrap().set[0].value = b"\n".to_vec();
    });
    assert_eq!(field, format!("{at}.edits[0].request.set[0].value"));
    let field = refused(|all| {
        let rewrite = call(all).edits[0].rewrite.as_mut().unwrap();
        rewrite.path.as_mut().unwrap().how = None;
    });
    assert_eq!(field, format!("{at}.edits[0].rewrite.path.how"));
}

#[test]
fn bad_redirect_refuses_naming_its_field() {
    let at = "actions[1].redirect";
    for status in [200, 0, 99_999] {
        let field = refused(|all| redirect(all).status = status);
        assert_eq!(field, format!("{at}.status"));
    }
    let field = refused(|all| redirect(all).scheme = Some("ftp".to_owned()));
    assert_eq!(field, format!("{at}.scheme"));
    assert_eq!(
        refused(|all| redirect(all).port = Some(0)),
        format!("{at}.port")
    );
    let field = refused(|all| redirect(all).response.as_mut().unwrap().remove[0].clear());
    assert_eq!(field, format!("{at}.response.remove[0]"));
    let field = refused(|all| {
        let methods = &mut redirect(all).cors.as_mut().unwrap().methods;
        methods.as_mut().unwrap().only[0] = "no method".to_owned();
    });
    assert_eq!(field, format!("{at}.cors.methods.only[0]"));
}

#[test]
fn invalid_backend_needs_neither_port_nor_endpoints() {
    let mut message = whole();
    let broken = backend(&mut message);
    (broken.invalid, broken.port) = (true, 0);
    broken.endpoints.clear();
    let table = routed_service(&message).unwrap();
    let Forward::Split(backends) = &table.rules[0].then else {
        panic!("{table:?}");
    };
    assert!(backends[0].invalid);
}

#[test]
fn backends_without_weight_are_refused_not_the_root() {
    let mut message = whole();
    backend(&mut message).weight = 0;
    let table = routed_service(&message).unwrap();
    assert_eq!(table.rules[0].then, Forward::Refuse(Reason::NoBackend));
}

#[test]
fn values_beyond_bounds_are_lowered_before_they_are_sent() {
    let retry = RuleRetry {
        attempts: u8::MAX,
        codes: vec![200, 503],
        backoff: Some(Duration::from_secs(60)),
    };
    let actions = Actions {
        retry: Some(retry),
        ..Actions::default()
    };
    let backend = Backend::new(ServiceId::new("shop", "v1"), 80, 1, "endpoints/shop/v1:80");
    let backend = backend.with_actions(Some(Arc::new(actions)));
    let table = Table {
        rules: vec![Rule {
            origin: Origin::new("HTTPRoute", "shop", "web"),
            when: Match::every_request(),
            then: Forward::Split(vec![backend]),
        }],
        otherwise: Forward::Root,
    };
    let read = routed_service(&routed_service_message(v1::Service::default(), &table)).unwrap();
    let Forward::Split(backends) = &read.rules[0].then else {
        panic!("{read:?}");
    };
    let retry = backends[0]
        .actions
        .as_ref()
        .unwrap()
        .retry
        .as_ref()
        .unwrap();
    assert_eq!((retry.attempts, &*retry.codes), (MAX_ATTEMPTS, &[503][..]));
    assert_eq!(retry.backoff, Some(MAX_BACKOFF));
}

/// A proxy of the version before routes gets none, and would not take one for a Service without
/// splits: it knows no content of this number.
#[test]
fn older_proxy_neither_gets_routes_nor_reads_them() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct EarlierResource {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "7")]
        service: Option<v1::Service>,
    }
    let content = v1::resource::Content::RoutedService(whole());
    let resource = v1::Resource {
        name: crate::names::service("shop", "web", 80),
        version: String::new(),
        content: Some(content),
    };
    let names = Capabilities::of_this_version();
    assert!(Capabilities::named(&names).suffice_for(&resource));
    let older: Vec<String> = names
        .into_iter()
        .filter(|name| name != "service-routes")
        .collect();
    assert!(!Capabilities::named(&older).suffice_for(&resource));
    assert!(!Capabilities::default().suffice_for(&resource));
    let read = EarlierResource::decode(resource.encode_to_vec().as_slice()).unwrap();
    assert_eq!((&*read.name, read.service), ("service/shop/web:80", None));
}

/// What only SMI's words say reads as before.
#[test]
fn older_proxy_reads_matches_of_groups_as_before() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct EarlierMatch {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, optional, tag = "2")]
        path_regex: Option<String>,
        #[prost(string, repeated, tag = "3")]
        methods: Vec<String>,
    }
    let one = HttpMatch::new("m", Some("/a"), &["GET"], &[("x", "y")]).unwrap();
    let sent = v1::HttpMatch::from(&one);
    assert_eq!((sent.path_kind, sent.headers[0].kind), (0, 0));
    assert!(sent.query.is_empty());
    let read = EarlierMatch::decode(sent.encode_to_vec().as_slice()).unwrap();
    let expected = EarlierMatch {
        name: "m".to_owned(),
        path_regex: Some("/a".to_owned()),
        methods: vec!["GET".to_owned()],
    };
    assert_eq!(read, expected);
}
