//! What a program that makes load has done.

/// How much, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LoadResult {
    pub(crate) requests: f64,
    /// Per second.
    pub(crate) rate: f64,
}
