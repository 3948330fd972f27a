//! When a rotation goes on, what it names while it waits, and that it locks no proxy out.
//!
//! Claims: trust-7

use std::time::UNIX_EPOCH;

use super::*;
use crate::verify::AuthorityId;

mod begins;
mod mesh;
mod schedules;
mod stored;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn id(number: u8) -> AuthorityId {
    AuthorityId::from([number; 16])
}

fn start() -> SystemTime {
    UNIX_EPOCH + 1_000 * HOUR
}

fn old() -> State {
    State::of(id(1), id(101))
}

/// A mesh in which everything is done that a phase waits for.
fn done(state: &State) -> Seen {
    Seen {
        settle: 2 * MINUTE,
        leaf_ttl: HOUR,
        request: None,
        root_is_due: false,
        has_root_key: true,
        source: Source::Generated,
        offered: None,
        issuers: Vec::new(),
        without_issuer: Vec::new(),
        replicas: vec![replica(state)],
        bundles: Bundles::Complete(start()),
        proxies: Some(vec![proxy(state)]),
        clock_is_off: false,
    }
}

fn replica(state: &State) -> Replica {
    Replica {
        name: "10.0.0.7".to_owned(),
        loaded: Loaded::Step {
            step: state.step,
            roots: state.roots.clone(),
            since: start(),
        },
    }
}

fn proxy(state: &State) -> Proxy {
    Proxy {
        pod: "shop/web-0".to_owned(),
        created: UNIX_EPOCH,
        stream: ProxyStream::Open,
        trusts: state.roots.clone(),
        authority: state.issuers.last().copied(),
    }
}

fn request(reason: Reason) -> Request {
    Request {
        id: "audit".to_owned(),
        scope: Scope::Root,
        reason,
    }
}

fn begin(reason: Reason) -> Begin {
    Begin {
        id: "audit".to_owned(),
        trigger: Trigger::Request,
        reason,
        source: Source::Generated,
    }
}

fn preparing(reason: Reason) -> State {
    old().started(&begin(reason), id(2), start())
}

fn activating(reason: Reason) -> State {
    preparing(reason).activated(id(102), start())
}

/// Long after all that is waited for by time.
fn late() -> SystemTime {
    start() + 10 * MINUTE
}

fn waits_for(state: &State, seen: &Seen, now: SystemTime) -> String {
    match step(state, seen, now) {
        Step::Wait(waits) => waits
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        other => format!("{other:?}"),
    }
}

#[test]
fn planned_rotation_passes_each_phase_and_ends() {
    let mut seen = done(&old());
    seen.request = Some(request(Reason::Planned));
    assert_eq!(
        step(&old(), &seen, start()),
        Step::Go(Move::Begin(begin(Reason::Planned)))
    );

    let state = preparing(Reason::Planned);
    assert_eq!((state.active(), state.next()), (Some(id(1)), Some(id(2))));
    assert_eq!(
        step(&state, &done(&state), late()),
        Step::Go(Move::Activate)
    );

    let state = activating(Reason::Planned);
    assert_eq!(state.roots, [id(2), id(1)], "the signing root stands first");
    assert_eq!(step(&state, &done(&state), late()), Step::Go(Move::Retire));

    let state = state.without_former(start());
    assert_eq!(state.roots, [id(2)]);
    assert!(state.retired.is_empty(), "its key is known to nothing else");
    assert_eq!(step(&state, &done(&state), late()), Step::Go(Move::Finish));

    let state = state.finished();
    let mut seen = done(&state);
    seen.request = Some(request(Reason::Planned));
    assert_eq!(
        step(&state, &seen, late() + HOUR),
        Step::Rest,
        "its id has run"
    );
    assert_eq!(state.step, 4);
}

#[test]
fn preparing_names_everything_that_lacks_next_root() {
    type Change = fn(&mut Seen);
    let state = preparing(Reason::Planned);
    let changes: [(&str, Change); 9] = [
        ("controller 10.0.0.7: serves step 0", |seen| {
            seen.replicas = vec![replica(&old())];
        }),
        // Its leader wrote another root in the same step.
        ("controller 10.0.0.7: serves step 1", |seen| {
            let other = State { step: 1, ..old() };
            seen.replicas = vec![replica(&other)];
        }),
        ("controller 10.0.0.7: not reached", |seen| {
            seen.replicas[0].loaded = Loaded::Unheard;
        }),
        ("controller 10.0.0.7: a former version", |seen| {
            seen.replicas[0].loaded = Loaded::Former;
        }),
        ("differs from the API server's", |seen| {
            seen.clock_is_off = true;
        }),
        ("namespace shop", |seen| {
            seen.bundles = Bundles::Behind(vec!["shop".to_owned()]);
        }),
        ("kubelets show the trust bundles: 60s left", |seen| {
            seen.bundles = Bundles::Complete(late() - MINUTE);
        }),
        ("has not read the pods", |seen| {
            seen.proxies = None;
        }),
        ("shop/web-0: lacks the next root", |seen| {
            seen.proxies = Some(vec![proxy(&old())]);
        }),
    ];
    for (named, change) in changes {
        let mut seen = done(&state);
        change(&mut seen);
        let waits = waits_for(&state, &seen, late());
        assert!(
            waits.contains(named) && !waits.contains(';'),
            "{named}: {waits}"
        );
    }
}

#[test]
fn activating_names_proxies_with_former_certificates() {
    let state = activating(Reason::Planned);
    let mut seen = done(&state);
    let with_former = Proxy {
        authority: Some(id(101)),
        ..proxy(&state)
    };
    seen.proxies = Some(vec![proxy(&state), with_former]);
    let waits = waits_for(&state, &seen, late() + 100 * HOUR);
    assert_eq!(waits, "shop/web-0: has a certificate below the former root");
    assert_eq!(
        progress(&state, &seen, late()),
        Progress {
            total: 2,
            trusting: 2,
            renewed: 1
        }
    );
    seen.replicas = vec![replica(&preparing(Reason::Planned))];
    assert!(waits_for(&state, &seen, late()).contains("serves step 1"));
}

#[test]
fn proxy_without_stream_counts_until_its_certificate_ended() {
    let state = preparing(Reason::Planned);
    let mut seen = done(&state);
    let away = |created: SystemTime| Proxy {
        created,
        stream: ProxyStream::None(late()),
        trusts: Vec::new(),
        authority: None,
        ..proxy(&state)
    };
    seen.proxies = Some(vec![away(UNIX_EPOCH)]);
    let lives = HOUR + GRACE;
    assert_eq!(
        waits_for(&state, &seen, late() + 14 * MINUTE),
        "shop/web-0: no stream for 14m"
    );
    let last = late() + lives - MINUTE;
    assert!(matches!(step(&state, &seen, last), Step::Wait(_)));
    assert_eq!(
        step(&state, &seen, late() + lives),
        Step::Go(Move::Activate)
    );

    // Made once kubelets show the new bundle: it was given nothing older.
    let young = start() + seen.settle + CLOCK_MARGIN + MINUTE;
    seen.proxies = Some(vec![away(young)]);
    assert_eq!(step(&state, &seen, late()), Step::Go(Move::Activate));
}

#[test]
fn pod_certified_by_a_late_replica_counts() {
    let state = activating(Reason::Planned);
    let mut seen = done(&state);
    let loaded = start() + 30 * MINUTE;
    seen.replicas[0].loaded = Loaded::Step {
        step: state.step,
        roots: state.roots.clone(),
        since: loaded,
    };
    let created = |created: SystemTime| Proxy {
        created,
        stream: ProxyStream::None(loaded),
        trusts: Vec::new(),
        authority: None,
        ..proxy(&state)
    };
    let now = loaded + 10 * MINUTE;
    seen.proxies = Some(vec![created(loaded - MINUTE)]);
    assert!(matches!(step(&state, &seen, now), Step::Wait(_)));
    seen.proxies = Some(vec![created(loaded + 2 * MINUTE)]);
    assert_eq!(step(&state, &seen, now), Step::Go(Move::Retire));
}

#[test]
fn old_proxy_that_reports_nothing_counts_for_a_life() {
    for state in [preparing(Reason::Planned), activating(Reason::Planned)] {
        let mut seen = done(&state);
        let silent = Proxy {
            trusts: Vec::new(),
            authority: None,
            ..proxy(&state)
        };
        seen.proxies = Some(vec![silent]);
        let waits = waits_for(&state, &seen, late());
        assert_eq!(
            waits,
            "shop/web-0: its version reports too little; counts for 55m"
        );
        assert!(matches!(
            step(&state, &seen, start() + HOUR + GRACE),
            Step::Go(_)
        ));
    }
}

#[test]
fn old_proxy_of_late_replica_counts_from_its_load() {
    let state = activating(Reason::Planned);
    let mut seen = done(&state);
    let silent = Proxy {
        authority: None,
        ..proxy(&state)
    };
    seen.proxies = Some(vec![silent]);
    let loaded = start() + 30 * MINUTE;
    seen.replicas[0].loaded = Loaded::Step {
        step: state.step,
        roots: state.roots.clone(),
        since: loaded,
    };
    let early = start() + HOUR + GRACE;
    assert!(matches!(step(&state, &seen, early), Step::Wait(_)));
    let last = loaded + HOUR + GRACE;
    assert_eq!(step(&state, &seen, last), Step::Go(Move::Retire));
}

#[test]
fn renewals_are_spread_by_count_in_every_planned_phase() {
    let within = |state: &State, count: usize| {
        let mut seen = done(state);
        seen.proxies = Some(vec![proxy(state); count]);
        announced(state, &seen, start()).renew_within
    };
    // Steady too: a person may have changed the order of roots.
    for state in [old(), activating(Reason::Planned)] {
        assert_eq!(within(&state, 3), Some(SPREAD));
        assert_eq!(within(&state, 2_000), Some(Duration::from_secs(64)));
    }
    let hasty = activating(Reason::Compromise);
    assert_eq!(within(&hasty, 2_000), Some(Duration::from_secs(32)));
    assert_eq!(within(&preparing(Reason::Planned), 2_000), None);
}

#[test]
fn proxy_not_back_yet_holds_up_a_long_phase() {
    for state in [preparing(Reason::Planned), activating(Reason::Planned)] {
        let mut seen = done(&state);
        let returning = Proxy {
            stream: ProxyStream::Returning,
            trusts: Vec::new(),
            authority: None,
            ..proxy(&state)
        };
        seen.proxies = Some(vec![returning]);
        let long_after = start() + 100 * HOUR;
        let waits = waits_for(&state, &seen, long_after);
        assert_eq!(
            waits,
            "shop/web-0: not back yet at the controller that has just started"
        );
    }
}

#[test]
fn compromise_goes_on_at_once_or_after_seconds() {
    for (state, longest) in [
        (preparing(Reason::Compromise), 10),
        (activating(Reason::Compromise), 11),
        (activating(Reason::Compromise).without_former(start()), 60),
    ] {
        let mut seen = done(&state);
        let away = Proxy {
            stream: ProxyStream::None(start()),
            trusts: Vec::new(),
            ..proxy(&state)
        };
        seen.proxies = Some(vec![proxy(&state), away]);
        seen.bundles = Bundles::Behind(vec!["shop".to_owned()]);
        seen.clock_is_off = true;
        let at_once = start() + CONNECTIONS_END;
        assert!(
            matches!(step(&state, &seen, at_once), Step::Go(_)),
            "{state:?}"
        );

        let nothing = Proxy {
            trusts: vec![id(1)],
            authority: Some(id(101)),
            ..proxy(&state)
        };
        seen.proxies = Some(vec![nothing]);
        let longest = Duration::from_secs(longest);
        let before = start() + longest - Duration::from_secs(1);
        assert!(
            matches!(step(&state, &seen, before), Step::Wait(_)),
            "{state:?}"
        );
        assert!(matches!(
            step(&state, &seen, start() + longest),
            Step::Go(_)
        ));
    }
    let retired = activating(Reason::Compromise).without_former(start());
    assert!(retired.is_retired(id(1)));
    let seen = done(&retired);
    assert!(announced(&retired, &seen, start()).end_others);
    let after = retired.finished();
    assert!(announced(&after, &seen, start() + HOUR).end_others);
    assert!(!announced(&after, &seen, start() + 2 * HOUR).end_others);
}

#[test]
fn clock_that_was_ahead_holds_up_no_compromise() {
    let began = start() + 25 * HOUR;
    for (reason, goes_on) in [(Reason::Compromise, true), (Reason::Planned, false)] {
        let state = old().started(&begin(reason), id(2), began);
        let mut seen = done(&state);
        seen.proxies = Some(vec![proxy(&old())]);
        let next = step(&state, &seen, start());
        assert_eq!(
            matches!(next, Step::Go(Move::Activate)),
            goes_on,
            "{next:?}"
        );
    }
    let ended = State {
        began: Some(began),
        ..old()
    };
    let mut seen = done(&ended);
    seen.request = Some(request(Reason::Planned));
    let next = step(&ended, &seen, start());
    assert!(matches!(next, Step::Go(Move::Begin(_))), "{next:?}");
}

#[test]
fn compromise_takes_over_planned_rotation_with_another_root() {
    let mut other = request(Reason::Compromise);
    other.id = "leak".to_owned();
    for state in [preparing(Reason::Planned), activating(Reason::Planned)] {
        let mut seen = done(&state);
        seen.request = Some(other.clone());
        let Step::Go(Move::Begin(begin)) = step(&state, &seen, start()) else {
            panic!("{state:?}");
        };
        assert_eq!(begin.reason, Reason::Compromise);
        let taken = state.started(&begin, id(3), start());
        assert_eq!(
            (taken.active(), taken.next()),
            (state.active(), Some(id(3)))
        );
        let taken = taken.activated(id(103), start()).without_former(start());
        assert_eq!(taken.roots, [id(3)]);
        assert!(taken.is_retired(id(1)) && taken.is_retired(id(2)));
    }
    // A third root is the last.
    let full = preparing(Reason::Planned).started(&begin(Reason::Compromise), id(3), start());
    let mut seen = done(&full);
    seen.request = Some(other);
    assert!(!matches!(
        step(&full, &seen, start()),
        Step::Go(Move::Begin(_))
    ));
}

#[test]
fn planned_rotations_wait_for_each_other() {
    let state = preparing(Reason::Planned);
    let mut seen = done(&state);
    let mut other = request(Reason::Planned);
    other.id = "next".to_owned();
    seen.request = Some(other);
    assert_eq!(step(&state, &seen, late()), Step::Go(Move::Activate));

    let ended = activating(Reason::Planned)
        .without_former(start())
        .finished();
    let early = waits_for(&ended, &seen, start() + MINUTE);
    assert!(early.contains("9m left"), "{early}");
    assert!(matches!(
        step(&ended, &seen, late()),
        Step::Go(Move::Begin(_))
    ));
}
