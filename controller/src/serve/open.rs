//! Opens a proxy's control stream: finds its pod and reads its Hello message.
//!
//! The certificate alone decides which pod a stream serves: the pod whose uid is in it, if that
//! pod runs as the service account in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use identity::PeerIdentity;
use model::PodId;
use model::compiled::Compiled;
use runtime::pool::Share;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Status, Streaming};
use tracing::{debug, info};
use wire::v1;
use wire::v1::from_proxy::Message;

use super::allowances::OPENINGS;
use super::announced_breakers::AnnouncedBreakers;
use super::configuration::{Configuration, keep_names};
use super::framed::{Outbox, ToProxies};
use super::proxy_info::ProxyInfo;
use super::queries::{self, ProxyQueries};
use super::quota_shares::QuotaShares;
use super::sent_grants::SentGrants;
use super::stream::{ProxyStream, Streams};
use super::stream_end::{self, RevokedPeer, StreamEnd, taken_over};
use super::stream_owner::StreamOwner;
use crate::fleet::Caller;
use crate::observe::reports::Reporter;

/// From the call to the Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a pod that is not known yet is waited for: its certificate proves
/// that it exists, so the watch will show it.
const POD_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts to serve a proxy with this identity.
///
/// # Errors
/// When it does not say Hello, or its pod is not known.
pub(super) async fn open(
    streams: &Streams,
    identity: PeerIdentity,
    incoming: Streaming<v1::FromProxy>,
) -> Result<ToProxies, Status> {
    let uid: Arc<str> = identity.pod_uid().unwrap_or_default().into();
    if let Err(wait) = streams.allowances.open(&uid, Instant::now()) {
        streams.limits.counter("stream-openings").inc();
        return Err(too_often(wait));
    }
    let permit = streams.permits.take(uid, 1).map_err(|full| {
        Status::resource_exhausted(format!("there are too many streams: {full}"))
    })?;
    let pod = pod_of(streams, &identity).await?;
    let (outbox, sent) = queries::outbox();
    let whose = (identity, pod, permit);
    let stream = stream(streams.clone(), whose, incoming, outbox);
    runtime::task::spawn("stream", stream);
    Ok(sent)
}

/// One proxy's stream from its Hello to its end. There are as many of these as proxies,
/// so what it holds while it waits is bounded by a test: it lends what it holds, since
/// an async function keeps each of its arguments twice.
pub(super) fn stream(
    streams: Streams,
    (identity, pod, permit): (PeerIdentity, PodId, Share<Arc<str>>),
    mut incoming: Streaming<v1::FromProxy>,
    outbox: Outbox,
) -> impl Future<Output = ()> + Send + 'static {
    let opened = Instant::now();
    async move {
        // The answer's head goes out before the Hello comes: a client may
        // wait for one before it sends the other.
        let hello = tokio::select! {
            hello = hello(&mut incoming) => hello,
            () = permit.taken() => Err(taken_over()),
        };
        let end = match hello {
            Ok(hello) => {
                let stream = begin(&streams, (&pod, &identity), *hello, opened, &outbox);
                serve(stream, &mut incoming, &permit).await
            }
            Err(refusal) => StreamEnd::Refused(refusal),
        };
        match end {
            StreamEnd::Over => debug!(%pod, "stream ended"),
            StreamEnd::Refused(status) => {
                info!(%pod, reason = status.message(), "stream ended");
                let _ = timeout(Duration::from_secs(1), outbox.send(Err(status))).await;
            }
        }
    }
}

/// The pod that a certificate names, once the model shows it.
async fn pod_of(streams: &Streams, identity: &PeerIdentity) -> Result<PodId, Status> {
    let Some(uid) = identity.pod_uid() else {
        return Err(Status::permission_denied("the certificate names no pod"));
    };
    let deadline = Instant::now() + POD_TIMEOUT;
    let mut latest = streams.latest.clone();
    let found = timeout_at(
        deadline,
        latest.wait_for(|latest| {
            latest
                .as_ref()
                .is_some_and(|compiled| compiled.pod_by_uid(uid).is_some())
        }),
    )
    .await;
    let compiled = match found {
        Ok(Ok(latest)) => latest.clone(),
        Ok(Err(_)) => return Err(Status::unavailable("the controller is ending")),
        Err(_) => None,
    };
    let Some((compiled, pod)) = compiled.and_then(|compiled| {
        let pod = compiled.pod_by_uid(uid)?.clone();
        Some((compiled, pod))
    }) else {
        return Err(Status::not_found("the pod of the certificate is not known"));
    };
    if !runs_as(&compiled, &pod, identity) {
        return Err(Status::permission_denied(
            "the pod does not run as the certificate's identity",
        ));
    }
    match stream_end::revoked(&compiled, identity) {
        Some(refusal) => Err(refusal),
        None => Ok(pod),
    }
}

/// What a stream begins with after its Hello.
fn begin<'a>(
    streams: &'a Streams,
    (pod, identity): (&PodId, &'a PeerIdentity),
    mut hello: v1::Hello,
    opened: Instant,
    outbox: &'a Outbox,
) -> Box<ProxyStream<'a>> {
    let account = identity.spiffe.service_account().unwrap_or_default();
    let uid: Arc<str> = identity.pod_uid().unwrap_or_default().into();
    let paused = pause_after(streams, &uid, &hello);
    let unnamed = keep_names(&mut hello.destinations);
    streams.left_out(pod, unnamed);
    let requested: BTreeSet<String> = hello.destinations.iter().cloned().collect();
    let proxy_info = ProxyInfo::hello(&hello, slots_ahead(streams, pod, &uid), opened);
    let is_new = hello.held.is_empty();
    let version = proxy_info.version();
    let mut retained: BTreeSet<String> = (streams.observed)
        .retained(&pod.namespace, account)
        .into_iter()
        .collect();
    retained.retain(|name| !requested.contains(name));
    debug!(%pod, version, wanted = requested.len(), retained = retained.len(), "hello");
    let (configuration, left_out) = Configuration::new(hello, requested, retained);
    streams.left_out(pod, left_out);
    let capabilities = configuration.capabilities();
    Box::new(ProxyStream {
        shared: streams,
        owner: StreamOwner {
            number: streams.next.fetch_add(1, Ordering::Relaxed),
            caller: Caller {
                account: format!("{}/{account}", pod.namespace).into(),
                uid: Arc::clone(&uid),
            },
            reporter: Reporter::certified(uid, pod, account),
        },
        breakers: AnnouncedBreakers::new(),
        shares: QuotaShares::new(capabilities, is_new),
        grants: SentGrants::new(capabilities),
        queries: ProxyQueries::of(&streams.live_queries, identity.pod_uid(), capabilities),
        configuration,
        proxy_info,
        revoked: RevokedPeer::new(identity),
        outbox,
        paused,
        must_yield: false,
    })
}

async fn serve(
    mut stream: Box<ProxyStream<'_>>,
    incoming: &mut Streaming<v1::FromProxy>,
    permit: &Share<Arc<str>>,
) -> StreamEnd {
    let streams = stream.shared;
    streams.metrics.open.inc();
    let ProxyStream { shares, owner, .. } = &mut *stream;
    shares.connected(&streams.share_registry, owner.uid(), owner.number);
    let Err(end) = stream.run(incoming, permit).await;
    let ProxyStream { shares, owner, .. } = &*stream;
    shares.ended(&streams.share_registry, owner.uid(), owner.number);
    streams.metrics.open.dec();
    streams.observed.ended(owner.number, &owner.key());
    end
}

/// Until when nothing more is read of a stream that began with this Hello.
fn pause_after(streams: &Streams, uid: &Arc<str>, hello: &v1::Hello) -> Option<Instant> {
    let now = Instant::now();
    let wait = streams.allowances.hello(uid, hello, now);
    if wait.is_zero() {
        return None;
    }
    streams.limits.counter("stream-messages").inc();
    Some(now + wait)
}

/// By how much the reports of this pod were shifted last, by whichever replica.
fn slots_ahead(streams: &Streams, pod: &PodId, uid: &str) -> i64 {
    let last = streams
        .observed
        .proxy(pod)
        .filter(|(_, state)| state.uid == uid);
    last.map_or(0, |(_, state)| state.slots_ahead)
}

async fn hello(incoming: &mut Streaming<v1::FromProxy>) -> Result<Box<v1::Hello>, Status> {
    match timeout(HELLO_TIMEOUT, incoming.message()).await {
        Ok(Ok(Some(v1::FromProxy {
            message: Some(Message::Hello(hello)),
        }))) => Ok(Box::new(hello)),
        Ok(Ok(_)) => Err(Status::invalid_argument("the first message must be Hello")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no Hello in time")),
    }
}

/// The refusal for a pod that has opened too many streams.
fn too_often(wait: Duration) -> Status {
    Status::resource_exhausted(format!(
        "this pod opens streams too often: {} at once and then one in {} s; try again in {} ms",
        OPENINGS.burst,
        OPENINGS.every.as_secs(),
        wait.as_millis().max(1),
    ))
}

fn runs_as(compiled: &Compiled, pod: &PodId, identity: &PeerIdentity) -> bool {
    let Some(record) = compiled.model.pod(pod) else {
        return false;
    };
    identity.spiffe.namespace() == Some(&*pod.namespace)
        && identity.spiffe.service_account() == Some(&*record.service_account)
        && identity.pod_uid() == Some(&*record.uid)
}
