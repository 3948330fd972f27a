//! Point 12: ten callers of two hundred endpoints.
//!
//! Claims: calls-64

use policy::balance::{Candidate, Cost, choose};
use policy::sticky::mix;
use policy::subset::{Member, PeerPosition, PeerPositions, members};
use policy::traffic::endpoint::Subset;

use crate::engine::{Dice, Events, ms, secs, with_every_seed};

const ENDPOINTS: usize = 200;
const CALLERS: u32 = 10;

enum Event {
    Arrival(usize),
    /// Of this caller, at this one of its members, sent then.
    Done(usize, usize, std::time::Instant),
}

#[derive(Debug)]
struct Result {
    most_endpoints: usize,
    busiest: u32,
    quietest: u32,
}

fn run(seed: u64) -> Result {
    let (mut events, mut dice) = (Events::new(), Dice::new(seed));
    let seeds: Vec<u64> = (0..ENDPOINTS as u64).map(|at| mix(at ^ seed)).collect();
    let callers: Vec<Vec<Member>> = (0..CALLERS)
        .map(|index| {
            let position = PeerPosition {
                index,
                peers: CALLERS,
            };
            let positions = PeerPositions {
                all: position,
                zone: position,
            };
            members(Subset::Automatic, &seeds, 0, positions, 0).unwrap()
        })
        .collect();
    let mut known: Vec<Vec<(Cost, usize)>> = callers
        .iter()
        .map(|members| vec![(Cost::new(), 0); members.len()])
        .collect();
    let mut taken = vec![0; ENDPOINTS];
    for caller in 0..callers.len() {
        events.after(dice.gap(1000.0), Event::Arrival(caller));
    }
    while events.since() < secs(25) {
        let now = events.now();
        match events.next().unwrap() {
            Event::Arrival(caller) => {
                events.after(dice.gap(1000.0), Event::Arrival(caller));
                let look = |at: usize| {
                    let (cost, in_flight) = &known[caller][at];
                    Candidate::Works {
                        score: cost.score(now, *in_flight),
                        share: callers[caller][at].share,
                        load: 0,
                    }
                };
                let picked = choose(callers[caller].len(), &[], look, || dice.roll()).unwrap();
                taken[callers[caller][picked.index].index] += 1;
                known[caller][picked.index].1 += 1;
                let took = dice.lognormal(ms(2), 0.3);
                events.after(took, Event::Done(caller, picked.index, now));
            }
            Event::Done(caller, at, sent) => {
                let now = events.now();
                let (cost, in_flight) = &mut known[caller][at];
                cost.observe(now, now - sent);
                *in_flight -= 1;
            }
        }
    }
    Result {
        most_endpoints: callers.iter().map(Vec::len).max().unwrap_or(0),
        busiest: taken.iter().copied().max().unwrap_or(0),
        quietest: taken.iter().copied().min().unwrap_or(0),
    }
}

#[test]
fn ten_callers_with_twenty_endpoints_load_200_evenly() {
    with_every_seed(run, |result| {
        result.most_endpoints <= 22
            && f64::from(result.busiest) <= 1.25 * f64::from(result.quietest)
    });
}
