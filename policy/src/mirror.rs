//! Decides which requests are mirrored, and to which Services.
//!
//! Each entry of a policy draws by itself, so a Service that gets 10 % gets them of all requests,
//! whatever the others get.

use http::Method;

use crate::balance::unit;
use crate::traffic::call::Mirror;

/// The entries that a request is copied for, which `backend` serves, as `namespace/name`:
/// no server gets a request twice. `random` is called once for each entry that may.
pub fn due<'a>(
    mirrors: &'a [Mirror],
    method: &'a Method,
    backend: &'a str,
    mut random: impl FnMut() -> u64 + 'a,
) -> impl Iterator<Item = &'a Mirror> {
    mirrors.iter().filter(move |mirror| {
        let (service, wanted) = (&mirror.service, &mirror.methods);
        backend.split_once('/') != Some((&*service.namespace, &*service.name))
            && wanted.contains(method)
            && unit(random()) < mirror.percent.share()
    })
}

#[cfg(test)]
mod tests;
