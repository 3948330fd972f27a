//! What a pod serves.

use crate::world::ObjectKey;

/// A Service, one of its ports, and the pod's own port behind that.
pub(crate) type Served = (ObjectKey, u16, u16);
