//! Collects the events of watches into Worlds, and detects which of them change something.

use std::{collections::BTreeMap, sync::Arc};

use super::{Fact, ObjectKey, Store, World, kinds::every_kind};

/// Whether a step changed anything, and whether that can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Nothing changed.
    None,
    /// Something changed.
    Ordinary,
    /// Something changed that must not wait for other changes.
    Urgent,
}

/// What a watcher says about one kind. A fact of `None` means that the object
/// exists but is of no use.
#[derive(Clone, Debug)]
pub enum Step<T> {
    /// A new list begins.
    Restart,
    /// Part of the new list.
    Listed(ObjectKey, Option<T>),
    /// The new list is whole: whatever is not in it is gone.
    Complete,
    /// Added or changed.
    Applied(ObjectKey, Option<T>),
    /// Gone.
    Deleted(ObjectKey),
    /// The API server does not serve the kind.
    Absent,
}

/// The facts of one kind.
#[derive(Debug)]
pub struct KindFacts<T> {
    store: Store<T>,
    incoming: Option<BTreeMap<ObjectKey, Arc<T>>>,
    complete: bool,
}

impl<T> Default for KindFacts<T> {
    fn default() -> Self {
        Self {
            store: Store::default(),
            incoming: None,
            complete: false,
        }
    }
}

impl<T: Fact> KindFacts<T> {
    /// Applies one step.
    pub fn take(&mut self, step: Step<T>) -> News {
        match step {
            Step::Restart => {
                self.incoming = Some(BTreeMap::new());
                News::None
            }
            Step::Listed(key, fact) => {
                if let (Some(incoming), Some(fact)) = (&mut self.incoming, fact) {
                    incoming.insert(key, Arc::new(fact));
                }
                News::None
            }
            Step::Complete => match self.incoming.take() {
                Some(incoming) => self.replace(incoming),
                None => News::None,
            },
            Step::Applied(key, fact) => self.set(key, fact.map(Arc::new)),
            Step::Deleted(key) => self.set(key, None),
            Step::Absent => self.replace(BTreeMap::new()),
        }
    }

    fn replace(&mut self, incoming: BTreeMap<ObjectKey, Arc<T>>) -> News {
        // The first list is a change even if it is empty: the World may now be complete.
        let mut news = if self.complete {
            News::None
        } else {
            News::Ordinary
        };
        self.complete = true;
        let gone: Vec<ObjectKey> = self
            .store
            .keys()
            .filter(|key| !incoming.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            news = news.max(self.set(key, None));
        }
        for (key, fact) in incoming {
            news = news.max(self.set(key, Some(fact)));
        }
        news
    }

    fn set(&mut self, key: ObjectKey, new: Option<Arc<T>>) -> News {
        let old = self.store.get(&key);
        match (old, &new) {
            (None, None) => return News::None,
            (Some(old), Some(new)) if old == new => return News::None,
            _ => {}
        }
        let urgent = T::urgent(old.map(Arc::as_ref), new.as_deref());
        let store = Arc::make_mut(&mut self.store);
        match new {
            Some(fact) => store.insert(key, fact),
            None => store.remove(&key),
        };
        if urgent { News::Urgent } else { News::Ordinary }
    }
}

macro_rules! collector {
    ($($(#[$doc:meta])* $field:ident: $facts:ident = $kind:ty, $how:ident $translate:ident,
        $change:ident, $object:expr, $status:expr;)+) => {
        /// The facts of all kinds.
        #[derive(Debug, Default)]
        pub struct Collector {
            $($(#[$doc])* pub $field: KindFacts<crate::world::$facts>,)+
            /// Found out by the controller itself, and never listed as a whole: a World is
            /// complete without them.
            pub names: KindFacts<crate::world::ResolvedName>,
            /// The same.
            pub ca_bundles: KindFacts<crate::world::CaBundle>,
            /// The same.
            pub listener_certificates: KindFacts<crate::world::ListenerCertificateFacts>,
        }

        impl Collector {
            /// Whether every kind has been listed.
            pub fn complete(&self) -> bool {
                $(self.$field.complete)&&+
            }

            /// A snapshot.
            pub fn world(&self) -> World {
                World {
                    $($field: self.$field.store.clone(),)+
                    names: self.names.store.clone(),
                    ca_bundles: self.ca_bundles.store.clone(),
                    listener_certificates: self.listener_certificates.store.clone(),
                }
            }
        }
    };
}

every_kind!(collector);
