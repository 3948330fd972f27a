//! What begins a rotation, and what replaces an issuer without one: a request, the root's life, and
//! the Secret that a root comes from.

use super::*;

/// The request is not carried out.
fn declined() -> Step {
    Step::Go(Move::Decline("audit".to_owned()))
}

#[test]
fn declined_compromise_never_runs_later() {
    let external = State {
        source: Source::Secret,
        ..old()
    };
    let mut seen = Seen {
        source: Source::Secret,
        request: Some(request(Reason::Compromise)),
        ..done(&external)
    };
    assert_eq!(step(&external, &seen, start()), declined());
    let state = external.declining("audit");
    assert_eq!(step(&state, &seen, start()), Step::Rest);

    // Its owner swaps the root, or takes it back: each is planned.
    seen.offered = Some(Offered {
        root: id(5),
        signs: false,
    });
    for source in [Source::Secret, Source::Generated] {
        seen.source = source;
        let Step::Go(Move::Begin(begin)) = step(&state, &seen, start()) else {
            panic!("no rotation");
        };
        let planned = (Trigger::Source, Reason::Planned, source);
        assert_eq!((begin.trigger, begin.reason, begin.source), planned);
    }
    // Given anew it makes haste.
    seen.source = Source::Secret;
    seen.request = Some(Request {
        id: "again".to_owned(),
        ..request(Reason::Compromise)
    });
    let Step::Go(Move::Begin(begin)) = step(&state, &seen, start()) else {
        panic!("no rotation");
    };
    assert_eq!(begin.reason, Reason::Compromise);
}

#[test]
fn life_begins_rotation_of_generated_roots_alone() {
    let mut seen = done(&old());
    seen.root_is_due = true;
    let Step::Go(Move::Begin(begin)) = step(&old(), &seen, start()) else {
        panic!("no rotation");
    };
    assert_eq!(
        (begin.trigger, begin.reason),
        (Trigger::Life, Reason::Planned)
    );
    seen.source = Source::Secret;
    assert_eq!(step(&old(), &seen, start()), Step::Rest);
    seen.request = Some(request(Reason::Planned));
    assert_eq!(step(&old(), &seen, start()), declined());
}

#[test]
fn offered_issuer_is_taken_or_begins_rotation() {
    let mut seen = done(&old());
    seen.source = Source::Secret;
    let offer = |root: u8, signs: bool| {
        Some(Offered {
            root: id(root),
            signs,
        })
    };
    seen.offered = offer(1, true);
    assert_eq!(step(&old(), &seen, start()), Step::Rest, "the one in use");
    seen.offered = offer(1, false);
    assert_eq!(step(&old(), &seen, start()), Step::Go(Move::TakeIssuer));
    seen.offered = offer(5, false);
    let Step::Go(Move::Begin(begin)) = step(&old(), &seen, start()) else {
        panic!("no rotation");
    };
    assert_eq!(
        (begin.trigger, begin.source),
        (Trigger::Source, Source::Secret)
    );
    let retired = State {
        retired: vec![RetiredRoot {
            root: id(5),
            at: start(),
        }],
        ..old()
    };
    assert_eq!(
        step(&retired, &seen, start()),
        Step::Rest,
        "its key is known"
    );

    // The owner swaps, and a request makes haste.
    let state = old().started(&begin, id(5), start());
    seen = Seen {
        source: Source::Secret,
        request: Some(request(Reason::Compromise)),
        ..done(&state)
    };
    assert_eq!(
        step(&state, &seen, start()),
        Step::Go(Move::Hasten("audit".to_owned()))
    );
    assert_eq!(state.hastened("audit", start()).ids, ["audit"]);
}

#[test]
fn issuers_of_folders_are_waited_for_and_known() {
    let mut seen = done(&old());
    seen.source = Source::Files;
    seen.offered = Some(Offered {
        root: id(1),
        signs: true,
    });
    seen.without_issuer = vec!["10.0.0.8".to_owned()];
    let waits = waits_for(&old(), &seen, start());
    assert!(waits.contains("controller 10.0.0.8: its folder"), "{waits}");
    seen.without_issuer.clear();
    let taken = Step::Go(Move::TakeIssuer);
    assert_eq!(step(&old(), &seen, start()), taken, "the Secret's goes");

    let state = State {
        source: Source::Files,
        ..old()
    };
    assert_eq!(step(&state, &seen, start()), Step::Rest);
    seen.issuers = vec![id(101), id(102)];
    let known = Step::Go(Move::KnowIssuers(vec![id(102)]));
    assert_eq!(step(&state, &seen, start()), known);
    let state = state.with_issuers(&[id(102)]);
    assert_eq!(step(&state, &seen, start()), Step::Rest);
    // More replicas than are remembered make no writes without end.
    seen.issuers = (101..120).map(id).collect();
    let Step::Go(Move::KnowIssuers(known)) = step(&state, &seen, start()) else {
        panic!("nothing is known");
    };
    assert_eq!(
        step(&state.with_issuers(&known), &seen, start()),
        Step::Rest
    );

    seen.source = Source::Secret;
    assert_eq!(step(&state, &seen, start()), taken, "the folders' go");

    let swap = State {
        source: Source::Files,
        ..old().started(
            &Begin {
                source: Source::Files,
                ..begin(Reason::Planned)
            },
            id(2),
            start(),
        )
    };
    let mut seen = done(&swap);
    seen.without_issuer = vec!["10.0.0.8".to_owned()];
    let waits = waits_for(&swap, &seen, late());
    assert!(waits.contains("controller 10.0.0.8: its folder"), "{waits}");
}

#[test]
fn source_that_is_generated_again_replaces_the_secrets_root() {
    let state = State {
        source: Source::Secret,
        ..old()
    };
    let Step::Go(Move::Begin(begin)) = step(&state, &done(&state), start()) else {
        panic!("no rotation");
    };
    assert_eq!(
        (begin.trigger, begin.source),
        (Trigger::Source, Source::Generated)
    );
    let taken = state.started(&begin, id(2), start());
    assert_eq!(taken.source, Source::Secret, "until the next root signs");
    assert_eq!(taken.activated(id(102), start()).source, Source::Generated);
}

#[test]
fn issuer_is_replaced_without_phases() {
    let mut seen = done(&old());
    seen.request = Some(Request {
        scope: Scope::Issuer,
        ..request(Reason::Planned)
    });
    let replace = Step::Go(Move::ReplaceIssuer("audit".to_owned()));
    assert_eq!(step(&old(), &seen, start()), replace);
    let state = old().with_issuer(id(111), Some("audit"));
    assert_eq!(state.issuers, [id(101), id(111)]);
    assert_eq!(step(&state, &seen, start()), Step::Rest);
    seen.has_root_key = false;
    assert_eq!(step(&old(), &seen, start()), declined());
}
