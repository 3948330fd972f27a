//! The trait that facts of every kind implement.

/// What is kept of one object.
pub trait Fact: Clone + PartialEq + Send + Sync + 'static {
    /// Whether going from one to the other must not wait for other changes.
    fn urgent(_old: Option<&Self>, _new: Option<&Self>) -> bool {
        false
    }
}
