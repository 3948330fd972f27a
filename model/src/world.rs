//! The World: everything the controller knows about the cluster, as one immutable value.
//!
//! Each fact is a small struct of our own, trimmed to what compiling needs, so
//! that ten thousand pods cost megabytes and not their full manifests, and so
//! that a pod whose status only ticks does not look changed.
//!
//! Taking a snapshot costs one reference per store: the maps sit behind `Arc`
//! and are copied only when they change while an older World is still in use.
//!
//! May import nothing else of this crate.

mod automation;
pub mod collect;
mod external;
mod fact;
mod facts;
mod gateway;
mod key;
pub mod kinds;
mod revocations;
mod smi;
mod stand_ins;
mod traffic;

use std::{collections::BTreeMap, sync::Arc};

pub use automation::*;
pub use external::*;
pub use fact::Fact;
// Whole, so that nothing here names the kinds one by one.
pub use facts::*;
pub use gateway::*;
pub use key::ObjectKey;
pub use key::object;
pub(crate) use key::{named, origin};
pub use revocations::*;
pub use smi::*;
pub use traffic::*;

/// One kind's facts by name.
pub type Store<T> = Arc<BTreeMap<ObjectKey, Arc<T>>>;

macro_rules! world {
    ($($(#[$doc:meta])* $field:ident: $facts:ident = $kind:ty, $how:ident $translate:ident,
        $change:ident, $object:expr, $status:expr;)+) => {
        /// What was true of the cluster at one moment.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct World {
            $($(#[$doc])* pub $field: Store<$facts>,)+
            /// Addresses of hosts outside the mesh, as far as they were resolved.
            pub names: Store<ResolvedName>,
            /// Certificates of authorities that ExternalServices name.
            pub ca_bundles: Store<CaBundle>,
        }
    };
}

kinds::every_kind!(world);

impl World {
    /// Facts of a namespace, if it exists.
    pub fn namespace(&self, name: &str) -> Option<&NamespaceFacts> {
        self.namespaces
            .get(&ObjectKey::new("", name))
            .map(Arc::as_ref)
    }

    /// Zone of a node; empty when the node or its zone is unknown.
    pub fn zone(&self, node: &str) -> &str {
        self.nodes
            .get(&ObjectKey::new("", node))
            .map_or("", |node| node.zone.as_ref())
    }
}
