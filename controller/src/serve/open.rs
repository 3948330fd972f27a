//! Opens a proxy's stream: whose it is, and its Hello.
//!
//! Which pod a stream serves follows from the certificate alone: the pod whose uid is in
//! it, if that pod runs as the service account in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use identity::PeerIdentity;
use runtime::pool::Share;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Status, Streaming};
use tracing::{debug, info};
use wire::v1;
use wire::v1::from_proxy::Message;

use super::allowances::OPENINGS;
use super::announced_breakers::AnnouncedBreakers;
use super::framed::{Outbox, ToProxies};
use super::orders::{self, ProxyQuestions};
use super::proxy_info::ProxyInfo;
use super::session::{Session, Target};
use super::stream::{ProxyStream, StreamEnd, Streams, Unsent, keep_names, taken_over};
use crate::fleet::Caller;
use crate::model::PodId;
use crate::model::changes::Interest;
use crate::model::compiled::Compiled;
use crate::observe::reports::Reporter;

/// From the call to the Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a pod that is not known yet is waited for: its certificate proves
/// that it exists, so the watch will show it.
const POD_TIMEOUT: Duration = Duration::from_secs(5);

impl Streams {
    /// Starts to serve a proxy with this identity.
    ///
    /// # Errors
    /// When it does not say Hello, or its pod is not known.
    pub(crate) async fn open(
        &self,
        identity: PeerIdentity,
        incoming: Streaming<v1::FromProxy>,
    ) -> Result<ToProxies, Status> {
        let uid: Arc<str> = identity.pod_uid().unwrap_or_default().into();
        if let Err(wait) = self.allowances.open(&uid, Instant::now()) {
            self.limits.counter("stream-openings").inc();
            return Err(too_often(wait));
        }
        let permit = self.permits.take(uid, 1).map_err(|full| {
            Status::resource_exhausted(format!("there are too many streams: {full}"))
        })?;
        let pod = self.pod_of(&identity).await?;
        let (outbox, sent) = orders::outbox();
        let whose = (identity, pod, permit);
        let stream = self.clone().stream(whose, incoming, outbox);
        runtime::task::spawn("stream", stream);
        Ok(sent)
    }

    /// One proxy's stream from its Hello to its end. There are as many of these as proxies,
    /// so what it holds while it waits is bounded by a test: it lends what it holds, since
    /// an async function keeps each of its arguments twice.
    pub(super) fn stream(
        self,
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
                    let stream = self.begin((&pod, &identity), *hello, opened, &outbox);
                    self.serve(stream, &mut incoming, &permit).await
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
    async fn pod_of(&self, identity: &PeerIdentity) -> Result<PodId, Status> {
        let Some(uid) = identity.pod_uid() else {
            return Err(Status::permission_denied("the certificate names no pod"));
        };
        let deadline = Instant::now() + POD_TIMEOUT;
        let mut latest = self.latest.clone();
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
        Ok(pod)
    }

    /// What a stream begins with after its Hello.
    fn begin<'a>(
        &'a self,
        (pod, identity): (&'a PodId, &PeerIdentity),
        mut hello: v1::Hello,
        opened: Instant,
        outbox: &'a Outbox,
    ) -> Box<ProxyStream<'a>> {
        let account = identity.spiffe.service_account();
        let account = account.unwrap_or_default().to_owned();
        let uid: Arc<str> = identity.pod_uid().unwrap_or_default().into();
        let paused = self.pause_after(&uid, &hello);
        let unnamed = keep_names(&mut hello.destinations);
        self.left_out(pod, unnamed);
        let mut asked: BTreeSet<String> = hello.destinations.iter().cloned().collect();
        let proxy_info = ProxyInfo::hello(&hello, self.slots_ahead(pod, &uid), opened);
        // A proxy that is new holds no shares.
        let forget = !hello.held.is_empty();
        let version = proxy_info.version();
        let mut remembered: BTreeSet<String> = (self.observed)
            .remembered(&pod.namespace, &account)
            .into_iter()
            .collect();
        remembered.retain(|name| !asked.contains(name));
        debug!(%pod, version, asked = asked.len(), remembered = remembered.len(), "hello");
        let (session, left_out) = Session::new(hello, remembered.iter().cloned());
        self.left_out(pod, left_out);
        let orders = ProxyQuestions::of(&self.asks, identity.pod_uid(), session.capabilities());
        // What found no place is not sent to other replicas either.
        asked.retain(|name| session.destinations().contains(name));
        Box::new(ProxyStream {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            shared: self,
            pod,
            caller: Caller {
                account: format!("{}/{account}", pod.namespace).into(),
                uid: Arc::clone(&uid),
            },
            breakers: AnnouncedBreakers::new(),
            shares_due: true,
            forget,
            reporter: Reporter::certified(uid, pod, &account),
            account,
            session,
            proxy_info,
            target: Target::new(),
            asks: asked,
            remembered,
            unsent: Unsent::Urgent,
            must_look: false,
            must_yield: false,
            paused,
            seen: 0,
            interest: Interest::default(),
            outbox,
            orders,
        })
    }

    async fn serve(
        &self,
        mut stream: Box<ProxyStream<'_>>,
        incoming: &mut Streaming<v1::FromProxy>,
        permit: &Share<Arc<str>>,
    ) -> StreamEnd {
        self.metrics.open.inc();
        let (board, uid) = (&self.board, Arc::clone(&stream.caller.uid));
        if stream.keeps_shares() {
            let lost = board.connected(&uid, stream.number, Instant::now());
            stream.forget &= lost;
        } else {
            stream.forget = false;
        }
        let end = stream.run(incoming, permit).await;
        if stream.keeps_shares() {
            board.ended(&uid, stream.number, Instant::now());
        }
        self.metrics.open.dec();
        self.observed.ended(stream.number, &stream.key());
        end
    }

    /// Until when nothing more is read of a stream that began with this Hello.
    fn pause_after(&self, uid: &Arc<str>, hello: &v1::Hello) -> Option<Instant> {
        let now = Instant::now();
        let wait = self.allowances.hello(uid, hello, now);
        if wait.is_zero() {
            return None;
        }
        self.limits.counter("stream-messages").inc();
        Some(now + wait)
    }

    /// By how much the reports of this pod were shifted last, by whichever replica.
    fn slots_ahead(&self, pod: &PodId, uid: &str) -> i64 {
        let last = self
            .observed
            .proxy(pod)
            .filter(|(_, state)| state.uid == uid);
        last.map_or(0, |(_, state)| state.slots_ahead)
    }
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
