//! Point 10: tenants of a split that shifts by a tenth.

use policy::name::ServiceId;
use policy::route::Backend;
use policy::sticky::{Key, backend};

use crate::engine::{Dice, with_every_seed};

fn split(stable: u32, canary: u32) -> Vec<Backend> {
    let of = |name: &str, weight| {
        let endpoints = format!("endpoints/shop/{name}:80");
        Backend::new(ServiceId::new("shop", name), 80, weight, endpoints)
    };
    vec![of("stable", stable), of("canary", canary)]
}

#[test]
fn tenth_shift_moves_tenth_of_random_tenants_none_back() {
    let run = |seed| {
        let (before, after) = (split(90, 10), split(80, 20));
        let mut dice = Dice::new(seed);
        let (mut moved, mut back) = (0, 0);
        for _ in 0..1000 {
            let key = Key::of(format!("tenant-{:x}", dice.roll()).as_bytes());
            let is_canary =
                |split: &[Backend]| *backend(split, key).unwrap().service.name == *"canary";
            match (is_canary(&before), is_canary(&after)) {
                (false, true) => moved += 1,
                (true, false) => back += 1,
                _ => {}
            }
        }
        (moved, back)
    };
    with_every_seed(run, |(moved, back)| {
        (70..=130).contains(moved) && *back == 0
    });
}
