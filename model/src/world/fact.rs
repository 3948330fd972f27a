//! What every kind of fact can do.

/// What is kept of one object.
pub trait Fact: Clone + PartialEq + Send + Sync + 'static {
    /// Whether going from one to the other must not wait for other changes.
    fn urgent(_old: Option<&Self>, _new: Option<&Self>) -> bool {
        false
    }
}
