//! A hash that every proxy of every version agrees on.
//!
//! Which endpoint a tenant has, and where an endpoint lies on a ring, must not depend on a
//! process, a release of the standard library or a machine. It protects from nothing: a
//! caller that chooses its key may choose its endpoint.

/// FNV-1a, mixed so that neighbours lie far apart.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// From one state of splitmix64 to the next: [`mix`] of each is the sequence of its numbers.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every bit of the result depends on every bit of `z`: the finalizer of splitmix64.
#[must_use]
pub const fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{STEP, hash, mix};

    #[test]
    fn what_two_versions_must_agree_on_does_not_change() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        // FNV-1a's own test vector, before mixing.
        assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(hash(b"foobar"), mix(0x8594_4171_f739_67e8));
        // The first numbers of splitmix64 from 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(STEP), 0x6e78_9e6a_a1b9_65f4);
    }
}
