//! FaultExperiments at the caller's proxy: what they do to attempts, what acts on that as on a real
//! failure, and what ends them.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use policy::fault::{Abort, Draw, Fault, FaultShare, HarmedPods, InjectedFailure, Selection};
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Cause, Causes, Fallback, FallbackResponse, FallbackTo, Timeouts};
use policy::traffic::endpoint::Breaker;
use policy::traffic::pod::GuardPort;
use policy::traffic::set::Percent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use wire::v1::{self, Protocol};

use super::answers::{App, OK, ask, limited, policy_of, retries, served_by, sum, whole};
use super::limits::guarded;
use super::tcp::echo;
use crate::support::{Pod, endpoint, endpoints, id, pair, raw, resource, vip};

/// The object of all rules of [`limited`].
const RUN: &str = "shop/calls";
const MARK: &str = "weft-fault: shop/calls";
const FAULTS: &str = "weft_faults_total";
const SEED: u64 = 42;
const ABORT: InjectedFailure = InjectedFailure::Abort(Abort {
    http_status: StatusCode::SERVICE_UNAVAILABLE,
    grpc_status: None,
});
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(30);

fn fault(delay: Option<Duration>, failure: Option<InjectedFailure>) -> Fault {
    Fault {
        selection: Selection {
            seed: SEED,
            share: FaultShare::ALL,
        },
        delay,
        failure,
        pods: None,
    }
}

fn policy(fault: Fault) -> EffectivePolicy {
    EffectivePolicy {
        fault: limited(Arc::new(fault)),
        ..EffectivePolicy::default()
    }
}

/// The largest share that may harm calls of the pod.
fn allow(client: &Pod, millionths: u32) {
    let workload = v1::Workload {
        identity: id("web").as_str().to_owned(),
        enforcement: v1::Enforcement::Open as i32,
        mtls: v1::MtlsMode::Permissive as i32,
        fault_limit: millionths,
        ..v1::Workload::default()
    };
    client.set(vec![resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )]);
}

fn grant(client: &Pod) {
    let grant = v1::Grant {
        experiment: RUN.to_owned(),
        seed: SEED,
        holds: 3000,
        left: 300_000,
    };
    client.proxy.config.grant(&v1::Grants {
        grants: vec![grant],
    });
}

fn withdraw(client: &Pod) {
    client.proxy.config.grant(&v1::Grants::default());
}

/// A client whose calls to one application are harmed from now on, if that is granted.
async fn harmed(traffic: &EffectivePolicy) -> (Pod, Pod, App) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    served_by(&client, &server, &[&app]);
    allow(&client, 1_000_000);
    client.set(vec![policy_of(traffic)]);
    (client, server, app)
}

#[tokio::test]
async fn abort_answers_in_place_of_application() {
    let (client, _server, app) = harmed(&policy(fault(None, Some(ABORT)))).await;
    grant(&client);
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains(MARK), "{answer}");
    assert!(!answer.contains("weft-reason"), "as an application's");
    let (status, answer) = ask(&client, "HEAD", "", "").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    let grpc = "content-type: application/grpc\r\n";
    let (status, answer) = ask(&client, "POST", grpc, "call").await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("grpc-status: 14"), "{answer}");
    assert!(answer.contains(MARK), "{answer}");
    assert_eq!(app.request_count(), 0);
    let labels = ["experiment=\"shop/calls\"", "effect=\"abort\""];
    assert!(sum(&client, FAULTS, &labels) >= 3.0, "{}", client.metrics());
    let failed = ["success=\"false\"", "reason=\"\""];
    assert!(sum(&client, "weft_requests_total", &failed) >= 2.0);
}

#[tokio::test]
async fn refuse_and_reset_fail_as_connections_do() {
    for (failure, status, reason) in [
        (InjectedFailure::Refuse, 503, "connect-failed"),
        (InjectedFailure::Reset, 502, "connection-lost"),
    ] {
        let (client, _server, app) = harmed(&policy(fault(None, Some(failure)))).await;
        grant(&client);
        let (given, answer) = ask(&client, "POST", "", "{}").await;
        assert_eq!(given, status, "{answer}");
        let reason = format!("weft-reason: {reason}");
        assert!(
            answer.contains(&reason) && answer.contains(MARK),
            "{answer}"
        );
        assert_eq!(app.request_count(), 0);
    }
}

#[tokio::test]
async fn delayed_call_reaches_application_later() {
    let delay = Duration::from_millis(300);
    let (client, _server, app) = harmed(&policy(fault(Some(delay), None))).await;
    grant(&client);
    let began = Instant::now();
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(MARK), "{answer}");
    assert!(began.elapsed() >= delay);
    assert_eq!(app.request_count(), 1);
    assert_eq!(sum(&client, FAULTS, &["effect=\"delay\""]), 1.0);
}

/// It takes longer than the call may.
#[tokio::test]
async fn delay_ends_by_time_limit_of_call() {
    let traffic = EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_millis(200)),
            ..Timeouts::DEFAULT
        }),
        ..policy(fault(Some(LONG), None))
    };
    let (client, _server, app) = harmed(&traffic).await;
    grant(&client);
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 504, "{answer}");
    assert_eq!(app.request_count(), 0);
}

/// A trace whose first attempt is harmed and whose second is not.
fn rescued(selection: Selection) -> u128 {
    let harms = |trace, attempt| selection.harms(Draw::Trace(trace), attempt);
    let mut traces = 1..;
    let rescued = traces.find(|trace| harms(*trace, 1) && !harms(*trace, 2));
    rescued.unwrap()
}

#[tokio::test]
async fn retry_rescues_call_whose_first_attempt_is_harmed() {
    let mut half = fault(None, Some(ABORT));
    half.selection.share = FaultShare::of_millionths(500_000).unwrap();
    let trace = rescued(half.selection);
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [App::new(server.ip, OK).await, App::new(server.ip, OK).await];
    served_by(&client, &server, &[&apps[0], &apps[1]]);
    allow(&client, 1_000_000);
    client.set(vec![policy_of(&policy(half))]);
    grant(&client);
    let header = format!("traceparent: 00-{trace:032x}-00f067aa0ba902b7-00\r\n");
    let (status, answer) = ask(&client, "GET", &header, "").await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.contains("weft-fault"), "{answer}");
    assert_eq!(retries(&client, "success"), 1.0, "{}", client.metrics());
    assert_eq!(sum(&client, FAULTS, &[]), 1.0);
}

#[tokio::test]
async fn endpoint_whose_calls_are_harmed_is_ejected() {
    let mut of_one = fault(None, Some(ABORT));
    of_one.pods = Some(HarmedPods::new(["uid-bad".into()]));
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut there = Vec::new();
    let mut apps = Vec::new();
    for uid in ["uid-bad", "", ""] {
        let app = App::new(server.ip, OK).await;
        there.push(v1::Endpoint {
            pod_uid: uid.to_owned(),
            ..endpoint(server.ip, app.port, Some("api"))
        });
        apps.push(app);
    }
    client.set(vec![endpoints("api", there)]);
    allow(&client, 1_000_000);
    client.set(vec![policy_of(&policy(of_one))]);
    grant(&client);
    let mut posts = 0;
    while sum(&client, "weft_ejections_total", &["cause=\"failures\""]) == 0.0 {
        grant(&client);
        ask(&client, "POST", "", "{}").await;
        posts += 1;
        sleep(Duration::from_millis(10)).await;
        assert!(posts < 500, "it must rest: {}", client.metrics());
    }
    for _ in 0..20 {
        assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
    }
    assert_eq!(apps[0].request_count(), 0);
}

#[tokio::test]
async fn fallback_answers_harmed_call() {
    let response = FallbackResponse {
        status: StatusCode::OK,
        headers: Vec::new(),
        body: Arc::from(&b"instead"[..]),
    };
    let fallback = Fallback {
        to: FallbackTo::Response(response),
        on: Causes::of(&[Cause::Unreachable]),
    };
    let traffic = EffectivePolicy {
        fallback: limited(Arc::new(fallback)),
        ..policy(fault(None, Some(InjectedFailure::Refuse)))
    };
    let (client, _server, app) = harmed(&traffic).await;
    grant(&client);
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.ends_with("instead"), "{answer}");
    assert_eq!(app.request_count(), 0);
}

#[tokio::test]
async fn own_breaker_opens_on_harmed_calls() {
    let traffic = EffectivePolicy {
        breaker: whole(Breaker {
            failure_percent: Percent::at_most(100),
            min_requests: 10,
            open_time: Duration::from_secs(60),
            ..Breaker::DEFAULT
        }),
        ..policy(fault(None, Some(ABORT)))
    };
    let (client, _server, _app) = harmed(&traffic).await;
    grant(&client);
    for _ in 0..10 {
        ask(&client, "POST", "", "{}").await;
    }
    let (_, answer) = ask(&client, "POST", "", "{}").await;
    assert!(answer.contains("weft-reason: circuit-open"), "{answer}");
}

#[tokio::test]
async fn calls_are_harmed_only_while_granted() {
    let (client, _server, _app) = harmed(&policy(fault(None, Some(ABORT)))).await;
    assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
    grant(&client);
    assert_eq!(ask(&client, "POST", "", "{}").await.0, 503);
    withdraw(&client);
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.contains("weft-fault"), "{answer}");
    // Of another run of the experiment.
    let other = v1::Grant {
        experiment: RUN.to_owned(),
        seed: SEED + 1,
        holds: 3000,
        left: 300_000,
    };
    client.proxy.config.grant(&v1::Grants {
        grants: vec![other],
    });
    assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
}

#[tokio::test]
async fn held_call_goes_on_when_grant_ends() {
    let both = fault(Some(LONG), Some(ABORT));
    for withdrawn in [true, false] {
        let (client, _server, app) = harmed(&policy(both.clone())).await;
        grant(&client);
        let ends = async {
            sleep(Duration::from_millis(300)).await;
            assert_eq!(app.request_count(), 0, "it is held");
            if withdrawn {
                withdraw(&client);
            }
        };
        // Where it is not withdrawn, the grant lapses after three seconds.
        let ((status, answer), ()) = tokio::join!(ask(&client, "POST", "", "{}"), ends);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(app.request_count(), 1);
    }
}

#[tokio::test]
async fn calls_of_namespaces_that_allow_none_are_spared() {
    let (client, _server, app) = harmed(&policy(fault(None, Some(ABORT)))).await;
    grant(&client);
    // None, and less than the experiment harms.
    for limit in [0, 999_999] {
        allow(&client, limit);
        assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
    }
    assert_eq!(app.request_count(), 2);
    assert_eq!(sum(&client, FAULTS, &[]), 0.0);
    allow(&client, 1_000_000);
    client.set(vec![policy_of(&policy(fault(None, Some(ABORT))))]);
    assert_eq!(ask(&client, "POST", "", "{}").await.0, 503, "control");
}

#[tokio::test]
async fn opaque_connections_are_delayed_or_reset_but_not_aborted() {
    let delay = Duration::from_millis(300);
    for (fault, is_reset) in [
        (fault(None, Some(InjectedFailure::Refuse)), true),
        (fault(None, Some(InjectedFailure::Reset)), true),
        (fault(None, Some(ABORT)), false),
        (fault(Some(delay), Some(ABORT)), false),
    ] {
        let (client, server, _, _) = pair(Protocol::Opaque).await;
        let port = echo(&server, "").await;
        client.reaches(&server, port);
        allow(&client, 1_000_000);
        client.set(vec![policy_of(&policy(fault.clone()))]);
        grant(&client);
        let began = Instant::now();
        let mut stream = client.call(vip()).await;
        if is_reset {
            let ended = tokio::time::timeout(LONG, stream.read_u8()).await;
            let ended = ended.unwrap().unwrap_err();
            assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{fault:?}");
        } else {
            stream.write_all(b"\x00binary").await.unwrap();
            stream.shutdown().await.unwrap();
            let echoed = raw(&mut stream, b"", Duration::from_secs(5)).await;
            assert_eq!(echoed, "\0binary", "{fault:?}");
            assert!(began.elapsed() >= fault.delay.unwrap_or_default());
        }
    }
}

/// So that calls which are made for it are of the same group.
#[tokio::test]
async fn untraced_request_to_checked_pod_gets_unsampled_trace() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    served_by(&client, &server, &[&app]);
    ask(&client, "GET", "", "").await;
    let groups = Selection {
        seed: SEED,
        share: FaultShare::of_millionths(100_000).unwrap(),
    };
    let checked = GuardPort {
        groups: whole(groups),
        ..GuardPort::default()
    };
    server.set(vec![guarded(app.port, checked)]);
    ask(&client, "GET", "", "").await;
    let own = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    ask(&client, "GET", &format!("{own}\r\n"), "").await;
    let heads = app.heads();
    assert!(!heads[0].contains("traceparent"), "{}", heads[0]);
    let given = heads[1]
        .lines()
        .find(|line| line.starts_with("traceparent: "));
    assert!(
        given.is_some_and(|line| line.ends_with("-00")),
        "{}",
        heads[1]
    );
    assert!(heads[2].contains(own), "{}", heads[2]);
}
