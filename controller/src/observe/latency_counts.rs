//! Compressed counts of calls by latency bucket, as a report stores them.
//!
//! A controller holds a report of every edge for each interval of its window, most of them with
//! calls in a few neighbouring buckets, so this is what most of its memory would go to. Only
//! buckets with calls are kept, as numbers of variable length, and few of those need an
//! allocation of their own.

use std::fmt;

use prost::encoding::{decode_varint, encode_varint};

/// Bytes that fit beside the length.
const INLINE: usize = 14;

/// Counts of leading buckets, without the empty ones at the end.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LatencyCounts(Encoded);

/// For each bucket with calls how many empty ones lie before it, and its calls.
#[derive(Clone, PartialEq, Eq)]
enum Encoded {
    Inline {
        length: u8,
        bytes: [u8; INLINE],
    },
    /// Boxed twice, or every edge would be larger by eight bytes.
    Long(Box<Box<[u8]>>),
}

// Every edge of every interval has one.
const _: () = assert!(size_of::<LatencyCounts>() <= 16);

impl LatencyCounts {
    pub(crate) fn new(counts: &[u32]) -> Self {
        let (mut all, mut empty) = (Vec::new(), 0);
        for count in counts {
            if *count == 0 {
                empty += 1;
                continue;
            }
            encode_varint(empty, &mut all);
            encode_varint(u64::from(*count), &mut all);
            empty = 0;
        }
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..all.len()), u8::try_from(all.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(&all);
                Self(Encoded::Inline { length, bytes })
            }
            _ => Self(Encoded::Long(Box::new(all.into()))),
        }
    }

    /// Calls of each bucket.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + Clone {
        let mut rest = self.encoded();
        let mut next = (0, None);
        std::iter::from_fn(move || {
            if next.1.is_none() && !rest.is_empty() {
                let empty = decode_varint(&mut rest).ok()?;
                next = (empty, decode_varint(&mut rest).ok());
            }
            let (empty, count) = &mut next;
            if *empty > 0 {
                *empty -= 1;
                return Some(0);
            }
            count.take().and_then(|count| u32::try_from(count).ok())
        })
    }

    /// Bytes that it holds beside itself.
    pub(crate) fn bytes(&self) -> usize {
        match &self.0 {
            Encoded::Inline { .. } => 0,
            Encoded::Long(bytes) => size_of::<Box<[u8]>>() + bytes.len(),
        }
    }

    fn encoded(&self) -> &[u8] {
        match &self.0 {
            Encoded::Inline { length, bytes } => {
                bytes.get(..usize::from(*length)).unwrap_or_default()
            }
            Encoded::Long(bytes) => bytes,
        }
    }
}

impl fmt::Debug for LatencyCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use policy::latency::BUCKETS;
    use proptest::prelude::*;

    use super::{INLINE, LatencyCounts};

    fn read(counts: &[u32]) -> Vec<u32> {
        LatencyCounts::new(counts).iter().collect()
    }

    proptest! {
        #[test]
        fn latency_counts_round_trip_without_trailing_zeros(
            counts in prop::collection::vec(
                prop_oneof![Just(0), 0..200_u32, any::<u32>()], 0..=BUCKETS,
            ),
        ) {
            let used = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
            prop_assert_eq!(read(&counts), &counts[..used]);
        }
    }

    #[test]
    fn usual_latency_counts_are_inline_and_larger_ones_accounted() {
        // Within a few neighbouring buckets.
        let usual = [&[0; 7][..], &[3, 190, 41, 5, 1]].concat();
        assert_eq!(LatencyCounts::new(&usual).bytes(), 0);
        assert_eq!(read(&usual), usual);
        let all = [1000; BUCKETS];
        assert!(LatencyCounts::new(&all).bytes() > INLINE);
        assert_eq!(read(&all), all);
        assert_eq!(read(&[]), Vec::<u32>::new());
    }
}
