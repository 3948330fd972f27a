//! Every end of a call beside every cause that a policy may name.
//!
//! Claims: calls-52

use http::{Method, StatusCode};

use super::*;
use crate::traffic::set::Methods;

const GET: Call<'static> = Call {
    method: &Method::GET,
    once: false,
};
const POST: Call<'static> = Call {
    method: &Method::POST,
    once: false,
};

fn due_for(call: Call<'_>, ended: Ended) -> Option<Cause> {
    due(Causes::ALL, &Retry::DEFAULT, call, ended)
}

#[test]
fn failure_reasons_map_to_documented_fallback_causes() {
    let caused = |cause: Cause| {
        let all = Reason::ALL.into_iter();
        let all = all.filter(move |reason| due_for(GET, Ended::Failed(*reason)) == Some(cause));
        all.map(Reason::as_str).collect::<Vec<_>>()
    };
    let unreachable = ["no-backend", "no-endpoint", "connect-failed", "tls-failed"];
    assert_eq!(caused(Cause::Unreachable), unreachable);
    assert_eq!(caused(Cause::CircuitOpen), ["circuit-open"]);
    assert_eq!(caused(Cause::Overload), ["overload"]);
    assert_eq!(caused(Cause::Timeout), ["deadline"]);
    assert_eq!(caused(Cause::ServerError), ["connection-lost"]);
}

#[test]
fn an_answer_stands_unless_it_blames_the_server() {
    for (status, cause) in [
        (200, None),
        (404, None),
        (429, None),
        (499, None),
        (500, Some(Cause::ServerError)),
        (503, Some(Cause::ServerError)),
        (599, Some(Cause::ServerError)),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(due_for(GET, Ended::Answered(status)), cause, "{status}");
    }
}

#[test]
fn possibly_delivered_call_falls_back_only_if_repeatable() {
    let seen = [
        Ended::Answered(StatusCode::SERVICE_UNAVAILABLE),
        Ended::Failed(Reason::Deadline),
        Ended::Failed(Reason::ConnectionLost),
    ];
    let unseen = [
        Ended::Failed(Reason::ConnectFailed),
        Ended::Failed(Reason::Overload),
        Ended::Failed(Reason::CircuitOpen),
    ];
    let any = Retry {
        methods: Methods::Any,
        ..Retry::DEFAULT
    };
    let once = Call { once: true, ..GET };
    for ended in seen {
        assert!(due_for(GET, ended).is_some(), "{ended:?}");
        assert_eq!(due_for(POST, ended), None, "{ended:?}");
        assert!(due(Causes::ALL, &any, POST, ended).is_some(), "{ended:?}");
        assert_eq!(due(Causes::ALL, &any, once, ended), None, "{ended:?}");
    }
    for ended in unseen {
        assert!(due_for(POST, ended).is_some(), "{ended:?}");
        assert!(due_for(once, ended).is_some(), "{ended:?}");
    }
}

/// Retries and a fallback are two things: a policy may have one without the other.
#[test]
fn call_without_retries_may_use_fallback() {
    let off = Retry {
        attempts: 0,
        ..Retry::DEFAULT
    };
    let ended = Ended::Failed(Reason::Deadline);
    assert_eq!(due(Causes::ALL, &off, GET, ended), Some(Cause::Timeout));
}

#[test]
fn unlisted_cause_triggers_no_fallback() {
    for cause in Cause::ALL {
        let others: Vec<Cause> = Cause::ALL.into_iter().filter(|one| *one != cause).collect();
        let all = Reason::ALL.into_iter().map(Ended::Failed);
        let all = all.chain([Ended::Answered(StatusCode::INTERNAL_SERVER_ERROR)]);
        for ended in all.filter(|ended| due_for(GET, *ended) == Some(cause)) {
            let due = |on: &[Cause]| due(Causes::of(on), &Retry::DEFAULT, GET, ended);
            assert_eq!(due(&others), None, "{ended:?}");
            assert_eq!(due(&[cause]), Some(cause), "{ended:?}");
        }
    }
}
