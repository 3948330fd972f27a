//! Computes how much each holder loses when memory runs out: each time the largest connection of
//! the largest holder by then.

use std::collections::BinaryHeap;

use runtime::occupancy::{Holder, Weights};

/// What one holder has at one listener, in bytes.
#[derive(Clone, Debug)]
pub(super) struct MemoryUse {
    /// Which listener.
    pub(super) at: usize,
    pub(super) weight: usize,
    of: Weights,
}

/// What one holder is to lose at one listener, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HolderLoss {
    pub(super) at: usize,
    pub(super) holder: Holder,
    pub(super) bytes: usize,
}

/// What is to be taken, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// A holder of so much holds much.
    pub(super) much: usize,
    /// So much is taken as long as a holder holds much.
    pub(super) of_much: usize,
    /// So much is taken from the heaviest holder, however little it holds.
    pub(super) of_any: usize,
}

impl MemoryUse {
    pub(super) fn new(at: usize, of: Weights) -> Self {
        Self {
            at,
            weight: of.connections.iter().sum(),
            of,
        }
    }
}

/// What everybody loses until that is reached; at least one connection, where there is any.
pub(super) fn losses(mut holdings: Vec<MemoryUse>, goal: Goal) -> Vec<HolderLoss> {
    let mut heaviest: BinaryHeap<(usize, usize)> = holdings
        .iter()
        .enumerate()
        .map(|(at, one)| (one.weight, at))
        .collect();
    let (mut taken, mut lost) = (0, vec![0; holdings.len()]);
    while let Some((weight, at)) = heaviest.pop() {
        let enough = if weight >= goal.much {
            goal.of_much
        } else {
            goal.of_any
        };
        if taken >= enough {
            break;
        }
        let Some(largest) = holdings[at].of.connections.pop() else {
            continue;
        };
        taken += largest;
        lost[at] += largest;
        heaviest.push((weight - largest, at));
    }
    let lost = holdings.into_iter().zip(lost);
    lost.filter(|(_, bytes)| *bytes > 0)
        .map(|(one, bytes)| HolderLoss {
            at: one.at,
            holder: one.of.holder,
            bytes,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Goal, MemoryUse, losses};
    use runtime::occupancy::Weights;

    /// What each loses of so many connections of ten bytes that each has.
    fn lost<const N: usize>(connections: [usize; N], goal: Goal) -> [usize; N] {
        let holding = |(last, many): (u8, usize)| {
            let weights = Weights {
                holder: IpAddr::from([10, 0, 0, last]).into(),
                connections: vec![10; many],
            };
            MemoryUse::new(usize::from(last), weights)
        };
        let mut all = [0; N];
        for loss in losses((0..).zip(connections).map(holding).collect(), goal) {
            all[loss.at] = loss.bytes;
        }
        all
    }

    #[test]
    fn only_largest_holder_loses_memory() {
        let goal = |of_much| Goal {
            much: 0,
            of_much,
            of_any: 0,
        };
        assert_eq!(lost([10, 4, 7], goal(0)), [0, 0, 0]);
        assert_eq!(lost([10, 4, 7], goal(30)), [30, 0, 0]);
        assert_eq!(lost([10, 4, 7], goal(70)), [50, 0, 20]);
        assert_eq!(lost([10, 4, 7], goal(usize::MAX)), [100, 40, 70]);
    }

    #[test]
    fn heavy_holder_loses_more_than_others() {
        let goal = Goal {
            much: 60,
            of_much: 1000,
            of_any: 20,
        };
        assert_eq!(lost([10, 5, 6], goal), [50, 0, 10]);
        assert_eq!(lost([5, 4, 5], goal), [10, 0, 10]);
    }
}
