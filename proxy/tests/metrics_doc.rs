//! docs/metrics.md names every metric of the proxy as a scraper sees it, and every value of a
//! label with fixed values; no page names a metric that does not exist. `WEFT_WRITE_GENERATED=1
//! cargo test -p proxy --test metrics_doc` regenerates the table of metrics.

#![allow(clippy::expect_used, clippy::panic)]

#[path = "metrics_doc/documented_names.rs"]
mod documented_names;
#[path = "metrics_doc/table.rs"]
mod table;

use policy::reason::Reason;
use prometheus_client::registry::Registry;
use weft_proxy::{
    AttemptLabels, AuditLabels, BreakerLabels, ByteLabels, CallFamilies, CancelledLabels,
    ConnectionLabels, ContextLabels, Direction, EjectionLabels, FallbackLabels, FaultLabels,
    LatencyLabels, LocalityLabels, Metrics, MirrorLabels, OverloadLabels, OverrideLabels, Port,
    RateLimitedLabels, RequestLabels, RetryLabels, RouteLabel, Security, ShadowLabels, ShedLabels,
    SpanLabels, StartupStep, TcpLabels, TelemetryDroppedLabels, ThrottledLabels, TlsLabels,
};

#[test]
fn the_page_names_every_metric_of_the_proxy() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    touch(&metrics);
    table::check("proxy", &registry);
}

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> documented_names::Words {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn fixed_label_values_match_their_documentation() {
    let page = documented_names::read("docs/metrics.md");
    let code = documented_names::code();
    let documented = |label: &str| documented_names::quoted(documented_names::cell(&page, label));
    // As the derive makes label values from the variants' names.
    let directions = [Direction::inbound, Direction::outbound].map(|one| match one {
        Direction::inbound => "inbound",
        Direction::outbound => "outbound",
    });
    documented_names::same("direction", &documented("`direction`"), &set(directions));
    let securities = [Security::mtls, Security::plaintext, Security::none];
    let securities = securities.map(|one| match one {
        Security::mtls => "mtls",
        Security::plaintext => "plaintext",
        Security::none => "none",
    });
    documented_names::same("security", &documented("`security`"), &set(securities));
    documented_names::same("success", &documented("`success`"), &set(["true", "false"]));
    let steps = set(StartupStep::ALL.map(StartupStep::name));
    documented_names::same("step", &documented("`step`"), &steps);

    let flows = documented_names::literals(&code, "for (flow, bytes) in [", "] {");
    documented_names::same("flow", &documented("`flow`"), &flows);
    let protocols = documented("`protocol`");
    for protocol in &protocols {
        assert!(code.contains(&format!("\"{protocol}\"")), "{protocol}");
    }
    let counted = documented_names::first_arguments(&code, "count_connection(Direction::inbound,");
    let counted = &counted | &documented_names::first_arguments(&code, "self.count(");
    assert!(counted.is_subset(&protocols), "{counted:?} {protocols:?}");

    let dropped = documented_names::first_arguments(&code, "telemetry_dropped(");
    let documented_values = documented("`signal`, `reason` of `weft_telemetry_dropped_total`");
    documented_names::same(
        "reason of dropped telemetry",
        &documented_values,
        &(&dropped | &set(["spans", "logs"])),
    );

    let verifier = documented_names::read("identity/src/verify/error.rs");
    let mut failures = documented_names::literals(&verifier, "pub fn label(", "\n    }\n");
    for (word, at) in [
        ("handshake", "map_or(\"handshake\""),
        ("timeout", "failed(\"timeout\")"),
    ] {
        assert!(code.contains(at), "{at}");
        failures.insert(word.to_owned());
    }
    let reasons = documented("`reason` of `weft_tls_failures_total`");
    documented_names::same("reason of TLS failures", &reasons, &failures);
}

// Claims: R8
#[test]
fn every_counted_limit_is_documented_and_no_other() {
    let page = documented_names::read("docs/metrics.md");
    let code = documented_names::code();
    for (at, call) in code.match_indices("metrics.limit(") {
        let argument = code[at + call.len()..].trim_start();
        let line = argument.lines().next().unwrap_or_default();
        assert!(
            argument.starts_with('"'),
            "a bound is named where it counts, as a literal: {line}"
        );
    }
    let table = page
        .split_once("| limit | bound |")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .expect("the page must have the table of limits")
        .0;
    let documented = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    documented_names::same(
        "limit",
        &documented,
        &documented_names::first_arguments(&code, ".limit("),
    );
}

#[test]
fn refusal_reasons_are_documented_and_reserved_ones_unused() {
    let page = documented_names::read("docs/reference.md");
    let table = page
        .split_once("## Refusals")
        .and_then(|(_, rest)| rest.split_once("\n\nBroken syntax"))
        .expect("the page must have the table of refusals")
        .0;
    let (mut given, mut reserved) = (
        documented_names::Words::new(),
        documented_names::Words::new(),
    );
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let names = documented_names::quoted(line[2..].split(" | ").next().unwrap_or_default());
        let to = if line.contains("reserved") {
            &mut reserved
        } else {
            &mut given
        };
        to.extend(names);
    }
    let code = documented_names::code();
    let (used, unused): (Vec<Reason>, Vec<Reason>) = Reason::ALL
        .into_iter()
        .partition(|reason| code.contains(&format!("Reason::{reason:?}")));
    let named = |reasons: &[Reason]| set(reasons.iter().map(|reason| reason.as_str()));
    documented_names::same("refusals", &given, &named(&used));
    documented_names::same("reserved refusals", &reserved, &named(&unused));
}

/// First cells of the tables of metrics.
fn documented_metrics(page: &str) -> documented_names::Words {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once("` | "))
        .filter(|(_, rest)| {
            ["counter", "gauge", "histogram"]
                .iter()
                .any(|kind| rest.starts_with(kind))
        })
        .map(|(name, _)| name.to_owned())
        .collect()
}

// Claims: R8
#[test]
fn pages_name_only_existing_metrics_and_label_values() {
    let known = documented_metrics(&documented_names::read("docs/metrics.md"));
    assert!(known.len() > 40, "{known:?}");
    // Targets of log filters, and the beginning of a pattern for grep.
    let no_metrics = set([
        "weft_controller",
        "weft_proxy",
        "weft_proxy_http",
        "weft_proxy_net",
        "weft_injector",
        "weft_",
    ]);
    let exists = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"];
        let bare = of_histogram.iter().find_map(|end| name.strip_suffix(end));
        known.contains(name) || bare.is_some_and(|name| known.contains(name))
    };
    // What queries may ask for.
    let failures = documented_names::read("identity/src/verify/error.rs");
    let mut reasons = documented_names::literals(&failures, "pub fn label(", "\n    }\n");
    reasons.extend(set(Reason::ALL.map(Reason::as_str)));
    reasons.extend(set(["", "handshake", "timeout"]));
    let limits = documented_names::first_arguments(&documented_names::code(), ".limit(");
    let values = [
        ("limit", limits),
        ("reason", reasons),
        ("success", set(["true", "false"])),
        ("direction", set(["inbound", "outbound"])),
        ("security", set(["mtls", "plaintext", "none"])),
    ];
    for folder in ["docs", "charts"] {
        for path in documented_names::below(folder, &[".md", ".yaml", ".txt", ".tpl"]) {
            let text = std::fs::read_to_string(&path).expect("the page must be readable");
            for name in documented_names::names(&text) {
                assert!(
                    exists(&name) || no_metrics.contains(&name),
                    "{}: nothing counts {name}",
                    path.display()
                );
            }
            for (label, values) in &values {
                let arguments = documented_names::first_arguments(&text, &format!("{label}="));
                let never: Vec<_> = arguments.difference(values).collect();
                assert!(
                    never.is_empty(),
                    "{}: {label} never is {never:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn documented_injector_metrics_match_its_source() {
    let page = documented_names::read("docs/metrics.md");
    let code = documented_names::read("injector/src/metrics.rs");
    let mut registered = documented_names::first_arguments(&code, "registry.register(");
    // Shared with the controller.
    assert!(code.contains("runtime::limit::Reached"));
    let limits = documented_names::read("runtime/src/limit.rs");
    registered.extend(documented_names::first_arguments(
        &limits,
        "registry.register(",
    ));
    let documented = documented_metrics(&page)
        .iter()
        .filter_map(|name| name.strip_prefix("weft_injector_"))
        .map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned())
        .collect();
    documented_names::same("metrics of the injector", &documented, &registered);
    let server = documented_names::read("injector/src/server.rs");
    let mut paths = documented_names::literals(&server, "\"/mutate\" => ", "};");
    paths.retain(|path| !path.starts_with('/'));
    let documented_values = documented_names::quoted(documented_names::cell(&page, "`path`"));
    documented_names::same("path", &documented_values, &paths);
    let refusals = documented_names::read("crds/src/inject/refusal.rs");
    let mut refusals = documented_names::literals(&refusals, "Self::NotAPod => ", "\n    }\n");
    let mutate = documented_names::read("injector/src/mutate.rs");
    refusals.extend(documented_names::first_arguments(&mutate, "reason: "));
    refusals.remove("");
    let documented_values =
        documented_names::quoted(documented_names::cell(&page, "`reason` of `refused`"));
    documented_names::same("reason of refused pods", &documented_values, &refusals);
}

/// Makes one series of every family, because families without one are not shown. Every field is
/// named, so that a new field without a line here does not compile.
fn touch(metrics: &Metrics) {
    let Metrics {
        calls,
        connections,
        tls_failures,
        revoked_refusals: _,
        limits: _,
        retries: _,
        ejections: _,
        breaker_state: _,
        fallbacks: _,
        locality: _,
        mirrored: _,
        faults: _,
        fault_sums: _,
        contexts,
        overrides,
        rate_limited: _,
        shadow_requests: _,
        shed,
        throttled: _,
        overload_limit,
        spans,
        telemetry_dropped,
        ejected: _,
        open_connections: _,
        unknown_destinations: _,
        audit_egress: _,
        unreadable_times: _,
        unreadable_loads: _,
        certificate_expiry: _,
        certificate_failures: _,
        control_connected: _,
        live_queries: _,
        batches: _,
        nacks: _,
        destinations: _,
        startup,
        shared: _,
    } = metrics;
    startup.reached(StartupStep::Settings);
    let (direction, security) = (Direction::outbound, Security::mtls);
    let reason = "handshake";
    tls_failures.at(&TlsLabels { direction, reason }).inc();
    connections
        .at(&ConnectionLabels {
            direction,
            protocol: "http1",
            security,
        })
        .inc();
    metrics.limit("connections");
    let port = Port::Number(8080);
    let priority = "Normal";
    shed.at(&ShedLabels { port, priority }).inc();
    overload_limit.at(&OverloadLabels { port }).set(9);
    let outcome = "granted";
    overrides.at(&OverrideLabels { outcome }).inc();
    contexts.at(&ContextLabels { how: "trace" }).inc();
    let outcome = "dropped";
    spans.at(&SpanLabels { outcome }).inc();
    let (signal, reason) = ("spans", "queue");
    let dropped = TelemetryDroppedLabels { signal, reason };
    telemetry_dropped.at(&dropped).inc();
    touch_calls(calls);
    touch_services(metrics);
}

/// What is counted for each Service, or policy about one.
fn touch_services(metrics: &Metrics) {
    let Metrics {
        retries,
        ejections,
        breaker_state,
        fallbacks,
        locality,
        mirrored,
        faults,
        rate_limited,
        shadow_requests,
        throttled,
        ..
    } = metrics;
    let peer = "shop/web".into();
    shadow_requests
        .at(&ShadowLabels { peer, said: "copy" })
        .inc();
    throttled
        .at(&ThrottledLabels {
            backend: "shop/web".into(),
            priority: "Normal",
        })
        .inc();
    retries
        .at(&RetryLabels {
            service: "shop/web".into(),
            backend: "shop/web".into(),
            outcome: "success",
        })
        .inc();
    fallbacks
        .at(&FallbackLabels {
            service: "shop/web".into(),
            fallback: "response".into(),
            when: "5xx",
            outcome: "success",
        })
        .inc();
    locality
        .at(&LocalityLabels {
            service: "shop/web".into(),
            locality: "same-zone",
        })
        .inc();
    mirrored
        .at(&MirrorLabels {
            service: "shop/web".into(),
            mirror: "shop/next".into(),
            outcome: "success",
        })
        .inc();
    let (experiment, effect) = ("shop/slow".into(), "delay");
    faults.at(&FaultLabels { experiment, effect }).inc();
    ejections
        .at(&EjectionLabels {
            service: "shop/web".into(),
            backend: "shop/web".into(),
            cause: "failures",
        })
        .inc();
    breaker_state
        .at(&BreakerLabels {
            service: "shop/web".into(),
            backend: "shop/web".into(),
        })
        .set(2);
    rate_limited
        .at(&RateLimitedLabels {
            policy: "shop/web".into(),
            limit: "each".into(),
            mode: "Enforce",
        })
        .inc();
}

fn touch_calls(calls: &CallFamilies) {
    let CallFamilies {
        cells: _,
        requests,
        cancelled,
        attempts,
        latency,
        tcp,
        bytes,
        audit,
        limits: _,
        compatibility: _,
    } = calls;
    let direction = Direction::outbound;
    let security = Security::mtls;
    requests
        .at(&RequestLabels {
            direction,
            service: "shop/web".into(),
            port: Port::Number(80),
            backend: "shop/web".into(),
            peer: "shop/web-0".into(),
            security,
            status: 200,
            success: true,
            reason: "",
            route: RouteLabel("cart/read".into()),
        })
        .inc();
    cancelled
        .at(&CancelledLabels {
            direction,
            service: "shop/web".into(),
            port: Port::Number(80),
            backend: "shop/web".into(),
            peer: "shop/web-0".into(),
            security,
            route: RouteLabel("cart/read".into()),
        })
        .inc();
    attempts
        .at(&AttemptLabels {
            service: "shop/web".into(),
            backend: "shop/web".into(),
            success: true,
        })
        .inc();
    latency
        .at(&LatencyLabels {
            direction,
            service: "shop/web".into(),
            port: Port::Number(80),
            backend: "shop/web".into(),
            route: RouteLabel("cart/read".into()),
        })
        .observe(0.001);
    tcp.at(&TcpLabels {
        direction,
        service: "shop/db".into(),
        port: Port::Number(5432),
        backend: "shop/db".into(),
        peer: "shop/db-0".into(),
        security,
        reason: "",
    })
    .inc();
    bytes
        .at(&ByteLabels {
            direction,
            flow: "sent",
            security,
        })
        .inc();
    audit
        .at(&AuditLabels {
            direction,
            peer: "shop/web".into(),
            port: Port::Number(80),
        })
        .inc();
}
