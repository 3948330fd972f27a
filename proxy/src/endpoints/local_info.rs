//! From where the own pod sees endpoints: where it runs, and which of its workload's
//! proxies it is.

use policy::subset::PeerPositions;

use crate::endpoints::location::Location;

/// From where the own pod sees endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalInfo {
    pub(crate) location: Location,
    /// `None`: not known.
    pub(crate) positions: Option<PeerPositions>,
}
