//! Which request a call is made for, and what is said where that is not known.
//!
//! Claims: calls-43, calls-47

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn named(id: u64) -> Key {
    Key {
        id: Some(Id::new(id)),
        trace: None,
    }
}

const fn traced(trace: u128) -> Key {
    Key {
        id: None,
        trace: Some(trace),
    }
}

const fn both(id: u64, trace: u128) -> Key {
    Key {
        id: Some(Id::new(id)),
        trace: Some(trace),
    }
}

#[test]
fn a_name_is_sixteen_hex_digits_and_nothing_else() {
    for random in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
        let id = Id::new(random);
        let text = id.to_string();
        assert_eq!(text.len(), 16);
        assert_eq!(Id::parse(text.as_bytes()), Some(id));
    }
    for text in [
        "",
        "123456789abcdef",
        "0123456789abcdef0",
        "0123456789ABCDEF",
        "+123456789abcdef",
        " 123456789abcdef",
        "0123456789abcdeg",
        "01234567-9abcdef",
    ] {
        assert_eq!(Id::parse(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(Id::parse(&[0xff; 16]), None);
}

#[test]
fn call_belongs_only_to_request_it_names() {
    let now = Instant::now();
    let mut table = Table::default();
    table.record(&both(1, 7), Some(now + ms(5)), 'a').unwrap();
    table.record(&both(2, 7), None, 'b').unwrap();
    assert_eq!(table.find(&named(1), now), Lookup::Named('a'));
    assert_eq!(table.find(&both(2, 7), now), Lookup::Named('b'));
    // A call that names a request that is not there means none of its trace either.
    assert_eq!(table.find(&both(3, 7), now), Lookup::Nothing);
    assert_eq!(table.find(&Key::default(), now), Lookup::Nothing);
    table.forget(&both(1, 7));
    assert_eq!(table.find(&named(1), now), Lookup::Nothing);
    assert_eq!(table.find(&named(2), now), Lookup::Named('b'));
}

#[test]
fn loosest_deadline_of_trace_holds_until_requests_finish() {
    let now = Instant::now();
    let mut table = Table::default();
    let until = |n| Some(now + ms(n));
    table.record(&traced(7), until(5), ()).unwrap();
    table.record(&traced(8), until(3), ()).unwrap();
    assert_eq!(table.find(&traced(7), now), Lookup::Traced(until(5)));
    table.record(&traced(7), until(9), ()).unwrap();
    table.record(&traced(7), until(2), ()).unwrap();
    assert_eq!(table.find(&traced(7), now), Lookup::Traced(until(9)));
    table.forget(&traced(7));
    assert_eq!(table.find(&traced(7), now), Lookup::Traced(until(9)));
    // One without an end: nothing made for it may be ended.
    table.record(&traced(7), None, ()).unwrap();
    table.record(&traced(7), until(1), ()).unwrap();
    assert_eq!(table.find(&traced(7), now), Lookup::Traced(None));
    for _ in 0..4 {
        assert_ne!(table.find(&traced(7), now), Lookup::Nothing);
        table.forget(&traced(7));
    }
    assert_eq!(table.find(&traced(7), now), Lookup::Nothing);
    assert_eq!(table.find(&traced(8), now), Lookup::Traced(until(3)));
    table.record(&traced(7), until(1), ()).unwrap();
    assert_eq!(table.find(&traced(7), now), Lookup::Traced(until(1)));
}

#[test]
fn removing_request_deadline_removes_it_from_its_trace() {
    let now = Instant::now();
    let mut table = Table::default();
    let until = |n| Some(now + ms(n));
    table.record(&both(1, 7), until(5), 'a').unwrap();
    table.record(&traced(7), until(9), 'b').unwrap();
    table.record(&both(2, 8), until(3), 'c').unwrap();
    table.loosen(&both(1, 7));
    assert_eq!(table.find(&traced(7), now), Lookup::Traced(None));
    assert_eq!(table.find(&traced(8), now), Lookup::Traced(until(3)));
    assert_eq!(table.find(&named(1), now), Lookup::Named('a'));
    // Nothing is counted twice by it.
    table.loosen(&named(2));
    table.loosen(&traced(6));
    for key in [both(1, 7), traced(7), both(2, 8)] {
        table.forget(&key);
    }
    assert!(table.is_empty());
    assert_eq!(table.find(&traced(7), now), Lookup::Nothing);
}

#[test]
fn finished_request_name_is_known_for_one_minute() {
    let now = Instant::now();
    let mut table = Table::default();
    table.record(&both(1, 7), None, ()).unwrap();
    table.end(&both(1, 7), now);
    assert!(table.is_empty());
    assert_eq!(table.find(&both(1, 7), now + OVER - ms(1)), Lookup::Over);
    assert_eq!(table.find(&named(1), now + OVER), Lookup::Nothing);
    // A call with the trace alone may mean another request of it.
    assert_eq!(table.find(&traced(7), now), Lookup::Nothing);
    table.record(&traced(9), None, ()).unwrap();
    table.end(&traced(9), now);
    assert_eq!(table.find(&traced(9), now), Lookup::Nothing);
}

#[test]
fn request_table_refuses_entries_beyond_its_capacity() {
    let now = Instant::now();
    let mut table = Table::default();
    for id in 0..MOST as u64 {
        table.record(&both(id, id.into()), None, ()).unwrap();
    }
    assert_eq!(table.record(&named(u64::MAX), None, ()), Err(Full));
    assert_eq!(table.record(&traced(1), None, ()), Err(Full));
    assert_eq!(table.len(), MOST);
    table.end(&both(0, 0), now);
    table.record(&named(u64::MAX), None, ()).unwrap();
    assert_eq!(table.record(&named(0), None, ()), Err(Full));
    // Nor of those that are over.
    for id in 1..MOST as u64 {
        table.end(&both(id, id.into()), now);
    }
    table.end(&named(u64::MAX), now);
    assert!(table.is_empty());
    assert_eq!(table.find(&named(0), now), Lookup::Nothing);
    assert_eq!(table.find(&named(1), now), Lookup::Over);
}

#[test]
fn two_requests_never_have_one_name() {
    let now = Instant::now();
    let mut table = Table::default();
    table.record(&named(1), None, 'a').unwrap();
    assert_eq!(table.record(&both(1, 7), None, 'b'), Err(Full));
    assert_eq!(table.find(&named(1), now), Lookup::Named('a'));
    assert_eq!(table.find(&traced(7), now), Lookup::Nothing);
}

/// By half of an entry's room that a map leaves free at worst, and the list beside it.
#[test]
fn retained_contexts_fit_their_bytes() {
    let slots = (MOST * 8 / 7).next_power_of_two();
    let map = |entry: usize| slots * (entry + 1);
    let named = map(size_of::<(Id, usize)>());
    let traces = map(size_of::<(u128, InFlight)>());
    let over = map(size_of::<(Id, Instant)>()) + slots * size_of::<(Instant, Id)>();
    let all = named + traces + over;
    assert!(all <= 192 * MOST, "{} for each request", all / MOST);
}
