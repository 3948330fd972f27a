//! Which field of a message a refusal names, and what older proxies read.

use super::*;
use crate::capability::Capabilities;

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
    for kind in 1..=3 {
        // A kind without its text is not every path.
        let field = refused(|all| (one(all).path_kind, one(all).path_regex) = (kind, None));
        assert_eq!(field, format!("{at}.pathRegex"));
    }
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
