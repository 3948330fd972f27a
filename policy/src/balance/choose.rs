//! Chooses among endpoints of which some are ejected, warming up, or in other zones.
//!
//! Two are drawn at random, as by [`super::pick`], and drawn again where one is ejected or was
//! tried. So a pick looks at a handful of endpoints whatever their number; only where most of them
//! are ejected it walks along the list.
//!
//! An endpoint that warms up is skipped as often as its share requires, rather than given a worse
//! score: a score would give it either nothing or everything. It counts as one of the two all the
//! same, or it would be drawn again until it is taken.
//!
//! Load is no part of a score for the same reason. Endpoints mostly answer equally fast, and then a
//! load of 10 % would decide as surely as one of 90, until the endpoint that gets nothing has
//! reported another. Where load alone would decide, the busier one loses as large a part of its
//! calls as its load makes its score worse.

use super::{below, load};

/// Draws before the list is walked along. While fewer than half rest, one pick of 65 536
/// needs more.
const DRAWS: usize = 16;

/// Load from which callers look elsewhere, and how much less must be found there.
const BUSY: u8 = 50;
const LESS_BUSY: u8 = 20;

/// What an endpoint is to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Candidate {
    /// `score` as of [`super::Cost::score`], `share` as of the warm-up, `load` in percent.
    Works { score: f64, share: f64, load: u8 },
    /// It takes the request as its probe, before any other.
    Probe,
    /// Only when no other is left.
    Ejected,
    /// Never: it was tried.
    Out,
}

impl Candidate {
    /// The same where all of them warm up, and the oldest takes `oldest` of its share: without
    /// another endpoint to take over it is spared no call, and equally new ones take as many.
    #[must_use]
    pub fn relative_to(self, oldest: f64) -> Self {
        match self {
            Self::Works { score, share, load } => Self::Works {
                score,
                share: (share / oldest).min(1.0),
                load,
            },
            other => other,
        }
    }
}

/// One of the two that are compared.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    index: usize,
    score: f64,
    load: u8,
}

impl Drawn {
    /// The one that takes the request. Equals leave it to the draw, in which `self` was first.
    fn or(self, other: Self, random: &mut impl FnMut() -> u64) -> Picked {
        let (better, worse) = if other.score < self.score {
            (other, self)
        } else {
            (self, other)
        };
        let (busy, calm) = (load::factor(better.load), load::factor(worse.load));
        let is_tipped = worse.score * calm < better.score * busy;
        let stays = !is_tipped || super::unit(random()) < calm / busy;
        work(if stays { better.index } else { worse.index })
    }
}

/// The endpoint that takes the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    pub index: usize,
    pub probe: bool,
}

/// The better of two of `len` endpoints, of which the nearest come first: `near` counts those
/// on the caller's own node, and those in its zone with these (none, 0 or `len` where that does
/// not matter). Where the nearest cannot serve, or are busy, the next ones are tried.
/// `random` gives numbers that are uniform over all of `u64`. `None`: all were tried, or
/// there are none.
pub fn choose(
    len: usize,
    near: &[usize],
    mut look: impl FnMut(usize) -> Candidate,
    mut random: impl FnMut() -> u64,
) -> Option<Picked> {
    let mut best: Option<Picked> = None;
    let mut first = 0;
    for end in near.iter().copied().chain([len]) {
        let end = end.min(len);
        if end <= first {
            continue;
        }
        let drawn = draw(first, end, &mut look, &mut random);
        first = end;
        let Some(drawn) = drawn else { continue };
        let is_better = best.is_none_or(|best| {
            let before = load_of(look(best.index));
            !drawn.probe && load_of(look(drawn.index)).saturating_add(LESS_BUSY) <= before
        });
        if is_better {
            best = Some(drawn);
            if end == len || drawn.probe || load_of(look(drawn.index)) < BUSY {
                break;
            }
        }
    }
    best.or_else(|| last_resort(len, &mut look, &mut random))
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
    let mut best: Option<Drawn> = None;
    // One that warms up and was passed over.
    let mut passed_over = None;
    for _ in 0..DRAWS {
        let index = first + below(len, random());
        if best.is_some_and(|best| best.index == index) || passed_over == Some(index) {
            if len == 1 {
                break;
            }
            continue;
        }
        match look(index) {
            Candidate::Probe => return Some(Picked { index, probe: true }),
            Candidate::Ejected | Candidate::Out => {}
            Candidate::Works { share, .. } if share < 1.0 && super::unit(random()) >= share => {
                if let Some(best) = best {
                    return Some(work(best.index));
                }
                passed_over = Some(index);
            }
            Candidate::Works { .. } if passed_over.is_some() => return Some(work(index)),
            Candidate::Works { score, load, .. } => {
                let drawn = Drawn { index, score, load };
                match best {
                    None => best = Some(drawn),
                    Some(best) => return Some(best.or(drawn, random)),
                }
            }
        }
    }
    let found = best.map(|best| best.index).or(passed_over);
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
            Candidate::Ejected | Candidate::Out => {}
        }
    }
    None
}

/// The first ejected one from a random place on: this proxy may be wrong about it, and no
/// other endpoint is left.
fn last_resort(
    len: usize,
    look: &mut impl FnMut(usize) -> Candidate,
    random: &mut impl FnMut() -> u64,
) -> Option<Picked> {
    let from = below(len, random());
    let mut order = (0..len).map(|step| (from + step) % len);
    order
        .find(|index| look(*index) == Candidate::Ejected)
        .map(work)
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
        Candidate::Probe | Candidate::Ejected | Candidate::Out => 0,
    }
}
