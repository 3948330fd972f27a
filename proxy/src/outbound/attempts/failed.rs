//! What is known of a call that failed, as far as that decides where it goes next.

use policy::retry::{self, RequestedWait};

use crate::outbound::send::Outgoing;

/// What is known of a call that failed.
pub(super) struct Failed<'a> {
    pub(super) outgoing: &'a Outgoing,
    pub(super) ended: retry::Ended,
    pub(super) requested_wait: RequestedWait,
    /// Its response reports that what it needed was tried again in vain.
    pub(super) spent: bool,
    /// Whether it is worth asking one that may be gone.
    pub(super) doubted: Doubted,
}

impl<'a> Failed<'a> {
    /// Without a response.
    pub(super) const fn new(outgoing: &'a Outgoing, ended: retry::Ended) -> Self {
        Self {
            outgoing,
            ended,
            requested_wait: RequestedWait::Nothing,
            spent: false,
            doubted: Doubted::Called,
        }
    }
}

/// What becomes of an endpoint that may be gone, where no other works.
#[derive(Clone, Copy)]
pub(super) enum Doubted {
    /// The call itself is the check.
    Called,
    /// It is checked beside the call, which may have its response yet elsewhere.
    PassedOver,
}
