//! Randomness for tests of statistics, the same in every run, and how many runs of a simulation
//! they need.

/// A generator of the tests' own (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and below 1.
    fn unit(&mut self) -> f64 {
        ((self.draw() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// A whole number with this mean.
    pub(crate) fn count(&mut self, mean: f64) -> u64 {
        mean as u64 + u64::from(self.chance(mean.fract()))
    }

    /// How many of these calls are bad, each by itself with this share: from one bad call to the
    /// next.
    pub(crate) fn bad(&mut self, calls: u64, share: f64) -> u64 {
        if share <= 0.0 {
            return 0;
        }
        let (mut bad, mut at) = (0, 0.0);
        loop {
            at += (self.unit().ln() / (1.0 - share).ln()).floor() + 1.0;
            if at > calls as f64 {
                return bad;
            }
            bad += 1;
        }
    }
}

/// Runs of each simulation: 500, or as `make automation` says.
pub(crate) fn runs() -> u64 {
    let given = std::env::var("WEFT_AUTOMATION_RUNS").ok();
    given.map_or(500, |runs| runs.parse().expect("a number of runs"))
}
