//! Decides which requests are mirrored, and to which Services.
//!
//! Each entry of a policy or of a route's rule draws by itself, so a Service that gets 10 % gets
//! them of all requests, whatever the others get.

use http::Method;

use crate::balance::unit;
use crate::route::Backend;
use crate::route::edits::RuleMirror;
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

/// The same of a route's rule, whatever the method is: `backend` serves the request itself.
pub fn due_by_rule<'a>(
    mirrors: &'a [RuleMirror],
    backend: &Backend,
    mut random: impl FnMut() -> u64,
) -> impl Iterator<Item = &'a RuleMirror> {
    mirrors.iter().filter(move |mirror| {
        (&mirror.service, mirror.port) != (&backend.service, backend.port)
            && mirror.share.takes(random())
    })
}

#[cfg(test)]
mod tests;
