//! The choice among endpoints that rest, warm up, lie near or far.
//!
//! Two are drawn at random, as by [`super::pick`], and drawn again where one rests or was
//! tried. So a pick looks at a handful of endpoints whatever their number; only where most
//! of them rest it goes on to walk along the list.
//!
//! One that warms up is left out of a draw as often as its share says, rather than made
//! dear: a score would give it either nothing or everything.

use super::below;

/// Draws before the list is walked along. While fewer than half rest, one pick of 65 536
/// needs more.
const DRAWS: usize = 16;

/// Load from which callers look elsewhere, and how much less must be found there.
const BUSY: u8 = 50;
const LESS_BUSY: u8 = 20;

/// What an endpoint is to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Candidate {
    /// `score` as of [`super::Cost::score`] times [`super::Load::factor`], `share` as of
    /// the warm-up, `load` in percent.
    Works { score: f64, share: f64, load: u8 },
    /// It takes the request as its probe, before any other.
    Probe,
    /// Only when nobody else is left.
    Rests,
    /// Never: it was tried.
    Out,
}

/// Who takes the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    pub index: usize,
    pub probe: bool,
}

/// The better of two of `len` endpoints, of which the first `near` lie in the caller's own
/// zone or node (0 or `len` where that does not matter). `random` gives numbers that are
/// uniform over all of `u64`. `None`: all were tried, or there are none.
pub fn choose(
    len: usize,
    near: usize,
    mut look: impl FnMut(usize) -> Candidate,
    mut random: impl FnMut() -> u64,
) -> Option<Picked> {
    let near = near.min(len);
    if near == 0 || near == len {
        return draw(0, len, &mut look, &mut random).or_else(|| last_resort(len, &mut look));
    }
    let Some(own) = draw(0, near, &mut look, &mut random) else {
        let elsewhere = draw(near, len, &mut look, &mut random);
        return elsewhere.or_else(|| last_resort(len, &mut look));
    };
    let load = load_of(look(own.index));
    if own.probe || load < BUSY {
        return Some(own);
    }
    let elsewhere = draw(near, len, &mut look, &mut random);
    let better = elsewhere.filter(|other| {
        !other.probe && load_of(look(other.index)).saturating_add(LESS_BUSY) <= load
    });
    Some(better.unwrap_or(own))
}

/// The better of two of the endpoints from `first` to before `end` that work.
fn draw(
    first: usize,
    end: usize,
    look: &mut impl FnMut(usize) -> Candidate,
    random: &mut impl FnMut() -> u64,
) -> Option<Picked> {
    let len = end - first;
    if len == 0 {
        return None;
    }
    let mut best: Option<(usize, f64)> = None;
    // One that warms up and was passed over.
    let mut passed_over = None;
    for _ in 0..DRAWS {
        let index = first + below(len, random());
        if best.is_some_and(|(best, _)| best == index) {
            if len == 1 {
                break;
            }
            continue;
        }
        match look(index) {
            Candidate::Probe => return Some(Picked { index, probe: true }),
            Candidate::Rests | Candidate::Out => {}
            Candidate::Works { share, .. } if share < 1.0 && super::unit(random()) >= share => {
                passed_over = Some(index);
            }
            Candidate::Works { score, .. } => match best {
                None => best = Some((index, score)),
                Some((_, other)) if score < other => return Some(work(index)),
                Some((best, _)) => return Some(work(best)),
            },
        }
    }
    let found = best.map(|(index, _)| index).or(passed_over);
    found.map(work).or_else(|| walk(first, end, look, random))
}

/// The first that works from a random place on.
fn walk(
    first: usize,
    end: usize,
    look: &mut impl FnMut(usize) -> Candidate,
    random: &mut impl FnMut() -> u64,
) -> Option<Picked> {
    let len = end - first;
    let from = below(len, random());
    let order = (0..len).map(|step| first + (from + step) % len);
    for index in order {
        match look(index) {
            Candidate::Probe => return Some(Picked { index, probe: true }),
            Candidate::Works { .. } => return Some(work(index)),
            Candidate::Rests | Candidate::Out => {}
        }
    }
    None
}

/// One that rests: this proxy may be wrong about it, and nobody else is left to ask.
fn last_resort(len: usize, look: &mut impl FnMut(usize) -> Candidate) -> Option<Picked> {
    let resting = |index: &usize| look(*index) == Candidate::Rests;
    (0..len).find(resting).map(work)
}

const fn work(index: usize) -> Picked {
    Picked {
        index,
        probe: false,
    }
}

const fn load_of(candidate: Candidate) -> u8 {
    match candidate {
        Candidate::Works { load, .. } => load,
        Candidate::Probe | Candidate::Rests | Candidate::Out => 0,
    }
}
