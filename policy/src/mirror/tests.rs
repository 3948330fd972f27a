//! Which Service gets copies of what.
//!
//! Claims: calls-53

use super::*;
use crate::name::ServiceId;
use crate::share::Share;
use crate::sticky::{STEP, mix};
use crate::traffic::call::Downstream;
use crate::traffic::set::{Methods, Percent};

fn mirror(name: &str, percent: u8, methods: Methods) -> Mirror {
    Mirror {
        service: ServiceId::new("shop", name),
        percent: Percent::at_most(percent),
        methods,
        downstream: Downstream::ReadOnly,
        allow_tcp: Vec::new(),
    }
}

fn names(mirrors: &[Mirror], method: &Method, backend: &str) -> Vec<String> {
    let due = due(mirrors, method, backend, || u64::MAX / 2);
    due.map(|mirror| mirror.service.name.to_string()).collect()
}

#[test]
fn mirror_copies_listed_methods_except_to_own_target() {
    let all = [
        mirror("next", 100, Methods::SAFE),
        mirror("audit", 100, Methods::Any),
        mirror("none", 0, Methods::Any),
    ];
    assert_eq!(names(&all, &Method::GET, "shop/api"), ["next", "audit"]);
    assert_eq!(names(&all, &Method::POST, "shop/api"), ["audit"]);
    assert_eq!(names(&all, &Method::GET, "shop/next"), ["audit"]);
    // Of the same name elsewhere, and a pod's own address.
    assert_eq!(names(&all, &Method::GET, "other/next"), ["next", "audit"]);
    assert_eq!(names(&all, &Method::GET, ""), ["next", "audit"]);
}

#[test]
fn each_entry_gets_its_share_of_all_requests() {
    let all = [
        mirror("tenth", 10, Methods::Any),
        mirror("all", 100, Methods::Any),
        mirror("none", 0, Methods::Any),
        mirror("half", 50, Methods::Any),
    ];
    let mut state = 7_u64;
    let mut random = || {
        let number = mix(state);
        state = state.wrapping_add(STEP);
        number
    };
    let mut copies = [0_u32; 4];
    for _ in 0..10_000 {
        for mirror in due(&all, &Method::GET, "shop/api", &mut random) {
            let at = all.iter().position(|one| one == mirror).unwrap();
            copies[at] += 1;
        }
    }
    // 5 sigma of 10 000 draws.
    assert!((850..=1150).contains(&copies[0]), "{copies:?}");
    assert!((4750..=5250).contains(&copies[3]), "{copies:?}");
    assert_eq!((copies[1], copies[2]), (10_000, 0));
}

#[test]
fn rule_mirrors_any_method_except_to_own_backend() {
    let all = [
        ("next", 80, 500_000),
        ("next", 90, 1_000_000),
        ("none", 80, 0),
    ];
    let all = all.map(|(name, port, millionths)| RuleMirror {
        service: ServiceId::new("shop", name),
        port,
        endpoints: format!("endpoints/shop/{name}:{port}").into(),
        share: Share::of_millionths(millionths).unwrap(),
    });
    let ports = |backend: &Backend, drawn: u64| -> Vec<u16> {
        let due = due_by_rule(&all, backend, || drawn);
        due.map(|mirror| mirror.port).collect()
    };
    let backend = |name: &str, port: u16| {
        let service = ServiceId::new("shop", name);
        Backend::new(service, port, 1, format!("endpoints/shop/{name}:{port}"))
    };
    let api = backend("api", 80);
    assert_eq!(ports(&api, 0), [80, 90]);
    assert_eq!(ports(&api, u64::MAX / 4), [80, 90]);
    assert_eq!(ports(&api, u64::MAX / 4 * 3), [90]);
    // No server gets a request twice.
    assert_eq!(ports(&backend("next", 90), 0), [80]);
    assert_eq!(ports(&backend("next", 80), 0), [90]);
}
