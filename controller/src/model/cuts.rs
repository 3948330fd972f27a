//! What was encoded of policies for proxies that carry out different parts of them.

use std::sync::Arc;

use parking_lot::Mutex;
use policy::traffic::part::Parts;

use super::published::EncodedResource;

/// Proxies of two versions back, of this one and of the next may be there together. A proxy that
/// names parts which no other names costs encoding, and no memory.
const KEPT: usize = 4;

/// The resource of each set of parts; `None` where nothing is left to say.
#[derive(Debug, Default)]
pub(crate) struct Cuts(Mutex<Vec<(Parts, Option<Arc<EncodedResource>>)>>);

impl Cuts {
    /// The one for these parts, made at its first request.
    pub(crate) fn of(
        &self,
        parts: Parts,
        make: impl FnOnce() -> Option<EncodedResource>,
    ) -> Option<Arc<EncodedResource>> {
        let cached = |kept: &[(Parts, Option<Arc<EncodedResource>>)]| {
            let found = kept.iter().find(|(of, _)| *of == parts);
            found.map(|(_, made)| made.clone())
        };
        if let Some(made) = cached(&self.0.lock()) {
            return made;
        }
        let made = make().map(Arc::new);
        let mut kept = self.0.lock();
        if let Some(faster) = cached(&kept) {
            return faster;
        }
        if kept.len() < KEPT {
            kept.push((parts, made.clone()));
        }
        made
    }
}
