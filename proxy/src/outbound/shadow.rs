//! Restricts what a workload may send that receives nothing but copies: it may only read. Its own
//! proxy refuses whatever could change something elsewhere, because the request that was copied has
//! changed it already.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use http::Method;
use policy::name::ServiceId;
use policy::reason::Reason;
use policy::traffic::set::is_safe;

use crate::config::snapshot::{Destination, Service, Snapshot};
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::context::ParentRequest;
use crate::http::received::Received;
use crate::http::shadow::Shadow;
use crate::http::upload::{Unchanged, Upload};
use crate::proxy::Proxy;

pub(super) fn refusal() -> Failure {
    Failure::refused(
        Reason::ShadowWrite,
        "this workload receives copies of requests, and may send nothing but GET, HEAD and \
         OPTIONS to Services of the mesh; allowTcp of the TrafficPolicy that mirrors to it may \
         let it open connections to them",
    )
}

/// How often this workload has become read-only. To be read before the decision whether something
/// may be sent.
pub(super) fn read_only_epoch(proxy: &Proxy) -> u64 {
    proxy.config.read_only_epoch().load(SeqCst)
}

/// The body of a request that may be sent, which ends when the workload becomes read-only after
/// `epoch_before`.
pub(super) fn watch(
    proxy: &Proxy,
    epoch_before: u64,
    method: &Method,
    body: Body,
) -> (Body, Upload) {
    Upload::watch_while(body, || {
        changes(method).then(|| Unchanged {
            then: epoch_before,
            now: Arc::clone(proxy.config.read_only_epoch()),
        })
    })
}

/// Whether a request of this method may change something elsewhere.
fn changes(method: &Method) -> bool {
    !is_safe(method)
}

/// What a request of the application has to do with copies that came to it. `made_for`: what
/// came, where its headers name it.
pub(super) fn of_call(
    proxy: &Proxy,
    snapshot: &Snapshot,
    received: &mut Received,
    made_for: &ParentRequest,
) -> Option<Shadow> {
    let (shadow_header, map) = (received.shadow, &mut received.parts.headers);
    let shadow = proxy.shadow_tracker.call_begins(shadow_header, map);
    // Nothing else came, whatever the application passes on.
    if snapshot.read_only().is_some() {
        return Some(Shadow::Any);
    }
    let ParentRequest::Request(request) = made_for else {
        return shadow;
    };
    match request.inherited().shadow {
        Some(Shadow::Any | Shadow::ReadOnly) => Some(Shadow::Any),
        Some(Shadow::Perhaps(_)) => shadow,
        None => shadow.filter(|shadow| *shadow == Shadow::Any),
    }
}

/// Whether a request may be sent.
pub(super) fn may_send(snapshot: &Snapshot, received: &Received) -> Result<(), Failure> {
    let reads = !changes(&received.parts.method) && received.upgrade.is_none();
    if reads || snapshot.read_only().is_none() {
        return Ok(());
    }
    Err(refusal())
}

/// Whether bytes without a reader may go to what is none of the mesh's Services.
pub(super) fn may_pass(snapshot: &Snapshot) -> Result<(), Failure> {
    if snapshot.read_only().is_some() {
        return Err(refusal());
    }
    Ok(())
}

/// Whether a connection of opaque bytes may be there.
pub(super) fn may_open(snapshot: &Snapshot, to: &Destination) -> Result<(), Failure> {
    let Some(allowed) = snapshot.read_only() else {
        return Ok(());
    };
    let named = |resource: &str| -> Option<(&ServiceId, u16)> {
        let service: &Service = snapshot.services.get(resource)?;
        Some((&service.id, service.port))
    };
    let is_allowed = |(service, port): (&ServiceId, u16)| {
        let mut all = allowed.iter();
        all.any(|one| one.service == *service && one.port == port)
    };
    let allowed = match to {
        Destination::Service(resource) => named(resource).is_some_and(is_allowed),
        Destination::Pod(pod) => {
            let mut services = pod
                .headless
                .iter()
                .filter_map(|(_, resource)| named(resource));
            services.any(is_allowed)
        }
        Destination::External { .. } | Destination::Refused { .. } => false,
    };
    if allowed { Ok(()) } else { Err(refusal()) }
}

/// Whether such a connection may be served by another Service than the one that was called,
/// where a split or a fallback led it to one.
pub(super) fn may_be_led_to(
    snapshot: &Snapshot,
    other: Option<&(Arc<str>, u16)>,
) -> Result<(), Failure> {
    let (Some(allowed), Some((service, port))) = (snapshot.read_only(), other) else {
        return Ok(());
    };
    let mut all = allowed.iter();
    if all.any(|one| one.port == *port && one.service.to_string() == **service) {
        return Ok(());
    }
    Err(refusal())
}
