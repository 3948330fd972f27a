//! A state as it is stored: it is equal to itself when it was read again, and an earlier or edited
//! content differs from a later one.

use super::*;

#[test]
fn earlier_content_differs_from_a_later_one() {
    let (before, now) = (preparing(Reason::Planned), activating(Reason::Planned));
    assert!(now.is_undone_by(&before) && !before.is_undone_by(&now));
    let retiring = now.without_former(start());
    assert!(!now.is_undone_by(&retiring), "a later step may lack a root");
    let foreign = State {
        step: now.step,
        ..State::of(id(9), id(109))
    };
    assert!(now.is_undone_by(&foreign));
    let again = now.written_over(&State {
        step: 40,
        ..before.clone()
    });
    assert_eq!(again.step, 41);
    assert!(!before.is_undone_by(&again) && !now.is_undone_by(&again));
}

#[test]
fn state_survives_its_stored_form() {
    let mut state = activating(Reason::Compromise).without_former(start());
    state.source = Source::Secret;
    state = state.declining("audit");
    for state in [state, old(), State::default()] {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(
            serde_json::from_str::<State>(&text).unwrap(),
            state,
            "{text}"
        );
    }
    let of_former = serde_json::from_str::<State>("{}").unwrap();
    assert_eq!(of_former, State::default());
    let later = serde_json::from_str::<State>(r#"{"step": 3, "unknown": []}"#).unwrap();
    assert_eq!(later.step, 3);
}

#[test]
fn state_is_corrected_where_roots_were_edited() {
    let state = activating(Reason::Planned);
    assert!(
        state.describes(&[id(2), id(1), id(7)]),
        "others may be trusted too"
    );
    assert!(!state.describes(&[id(1), id(2)]) && !state.describes(&[id(2)]));
    let corrected = state.corrected(id(1), id(101));
    assert_eq!(corrected.step, state.step);
    assert_eq!(corrected.ids, state.ids);
    assert_eq!(corrected.phase(), None);
}

#[test]
fn planned_rotation_after_compromise_vouches_for_former_issuers() {
    let after = activating(Reason::Compromise).without_former(start());
    let after = after.finished();
    assert_eq!(
        (&after.issuers[..], &after.former[..]),
        (&[id(102)][..], &[][..])
    );
    let planned = after.started(&begin(Reason::Planned), id(3), start());
    let planned = planned.activated(id(103), start()).without_former(start());
    let planned = planned.finished();
    assert!(announced(&planned, &done(&planned), start()).end_others);
    assert_eq!(
        (&planned.issuers[..], &planned.former[..]),
        (&[id(103)][..], &[id(102)][..])
    );

    let again = planned.started(&begin(Reason::Compromise), id(4), start());
    assert_eq!(again.former, [id(102)], "until the next root signs");
    let again = again.activated(id(104), start());
    assert_eq!(
        (&again.issuers[..], &again.former[..]),
        (&[id(104)][..], &[][..])
    );
    // A planned one that goes on as a Compromise.
    let planned = after.started(&begin(Reason::Planned), id(3), start());
    let activated = planned.activated(id(103), start());
    let hastened = activated.hastened("leak", start());
    assert!(hastened.former.is_empty(), "{hastened:?}");
}

#[test]
fn haste_in_retiring_refuses_roots_that_left_before() {
    let retiring = activating(Reason::Planned).without_former(start());
    assert!(!retiring.is_retired(id(1)));
    let hastened = retiring.hastened("leak", late());
    assert!(hastened.is_retired(id(1)), "{hastened:?}");
    assert!(!hastened.is_retired(id(2)), "{hastened:?}");
    let ended = hastened.finished();
    assert!(announced(&ended, &done(&ended), late()).end_others);
}
