//! The proxy's side of the conversation with the controller: get a
//! certificate, keep it fresh, hold the stream, apply what comes.
//!
//! Configuration never ages: while no controller answers, the last snapshot
//! serves. A certificate does age, so it is renewed well before its end by the wall
//! clock, and a failed renewal keeps the valid one.
//!
//! Whom to trust, the controller says. A proxy that missed the day on which the roots
//! were replaced cannot hear it say so; then one connection, which asks for a
//! certificate, trusts the mounted bundle as the first one of all did.

pub mod leaving;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use identity::key::LeafKey;
use identity::tls::{self, CertHandle, H2_ALPN, Leaf};
use identity::{IdentityError, Roots};
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use wire::v1;
use wire::v1::control_client::ControlClient;

use crate::config::store::State;
use crate::control::leaving::{Contact, Facts, Leaving};
use crate::settings::Settings;

/// Resolving the controller's name and connecting to one of its addresses.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// One request for a certificate.
const CERTIFY_WITHIN: Duration = Duration::from_secs(10);
/// Messages to the controller that wait to be sent; more than a handful means
/// that the stream is dead, and it is opened anew.
const OUTBOX: usize = 64;
/// Reports that wait to be sent; the rest waits where it is kept.
const REPORTS: usize = 4;
/// Largest batch: 10 000 endpoints are about 1 MiB.
const MESSAGE_LIMIT: usize = 32 * 1024 * 1024;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// How often idle destinations are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How often the trust bundle's file is read again.
const BUNDLE_EVERY: Duration = Duration::from_secs(2);
/// How long a fresh certificate is not given up for a controller of an unknown
/// authority: of two that disagree each would send us to the other.
const FRESH_FOR: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the conversation needs and fills.
#[derive(Clone, Debug)]
pub struct Control {
    pub settings: Arc<Settings>,
    pub state: Arc<State>,
    pub certs: CertHandle,
    pub roots: Roots,
    /// What certificates are renewed by.
    pub clock: Clock,
}

/// Whether a controller was met whose authority is unknown.
#[derive(Debug, Default)]
struct Doubt {
    raised: AtomicBool,
    news: Notify,
}

impl Doubt {
    fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// For one connection.
    fn take(&self) -> bool {
        self.raised.swap(false, Ordering::Relaxed)
    }

    async fn raised(&self) {
        while !self.raised.load(Ordering::Relaxed) {
            self.news.notified().await;
        }
    }
}

/// What the rest of the process may wait for.
#[derive(Clone, Debug)]
pub struct Progress {
    pub certified: watch::Receiver<bool>,
    pub configured: watch::Receiver<bool>,
    /// Whether the mesh is being uninstalled, and what that means here.
    pub leaving: watch::Receiver<Leaving>,
}

impl Control {
    /// Starts the conversation on the current runtime.
    #[must_use]
    pub fn start(self) -> Progress {
        let (certified, certified_seen) = watch::channel(false);
        let (configured, configured_seen) = watch::channel(false);
        let (leaving, leaving_seen) = watch::channel(Leaving::No);
        let contact = watch::Sender::new(Contact::default());
        let contact_seen = contact.subscribe();
        let doubt = Arc::new(Doubt::default());
        let (control, doubted) = (self.clone(), Arc::clone(&doubt));
        let made = contact.clone();
        runtime::task::spawn("certificate", async move {
            control.keep_certified(certified, &made, &doubted).await
        });
        let control = self.clone();
        let ready = certified_seen.clone();
        runtime::task::spawn("control stream", async move {
            control
                .keep_streaming(ready, configured, &contact, &doubt)
                .await
        });
        runtime::task::spawn("trust bundle", async move {
            self.watch_bundle(leaving, contact_seen).await
        });
        Progress {
            certified: certified_seen,
            configured: configured_seen,
            leaving: leaving_seen,
        }
    }

    async fn keep_certified(
        &self,
        certified: watch::Sender<bool>,
        contact: &watch::Sender<Contact>,
        doubt: &Doubt,
    ) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        loop {
            match self.certify(contact, doubt).await {
                Ok(leaf) => {
                    let (issued, end) = (self.clock.now(), leaf.not_after());
                    self.certs.store(leaf);
                    backoff.reset();
                    certified.send_replace(true);
                    let unix = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                    self.state
                        .metrics
                        .certificate_expiry
                        .set(i64::try_from(unix).unwrap_or(i64::MAX));
                    let renew = identity::rotate::renew_at(issued, end, rand::random());
                    let renew = renew.max(issued + BACKOFF_FIRST);
                    let wait = renew.duration_since(issued).unwrap_or_default();
                    tracing::info!(
                        seconds = wait.as_secs(),
                        "certificate received, renewal planned"
                    );
                    let doubted = async {
                        sleep(FRESH_FOR).await;
                        doubt.raised().await;
                    };
                    tokio::select! {
                        () = self.clock.sleep_until(renew) => {}
                        () = doubted => {}
                    }
                }
                Err(error) => {
                    self.state.metrics.certificate_failures.inc();
                    tracing::warn!(%error, "no certificate from the controller, trying again");
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn certify(
        &self,
        contact: &watch::Sender<Contact>,
        doubt: &Doubt,
    ) -> Result<Leaf, BoxError> {
        let token = tokio::fs::read_to_string(&self.settings.token_file)
            .await
            .map_err(|error| format!("{}: {error}", self.settings.token_file.display()))?;
        let key = LeafKey::generate()?;
        let csr = key.csr()?;
        let mounted = match doubt.take() {
            true => self.mounted_roots().await,
            false => None,
        };
        let config = tls::bootstrap_client_config(
            mounted.as_ref().unwrap_or(&self.roots),
            self.settings.controller_identity.clone(),
            &[H2_ALPN],
        );
        // A mounted bundle that is wrong must not be what is tried next time.
        let doubt = Some(doubt).filter(|_| mounted.is_none());
        let channel = self.channel(config, contact, doubt).await?;
        let request = v1::CertifyRequest {
            token: token.trim().to_owned(),
            csr,
        };
        let answer = timeout(CERTIFY_WITHIN, ControlClient::new(channel).certify(request))
            .await
            .map_err(|_| "the controller took too long to issue a certificate")?
            .map_err(|status| {
                format!("the controller refused a certificate: {}", status.message())
            })?
            .into_inner();
        let chain = answer.chain.into_iter().map(CertificateDer::from).collect();
        self.trust(answer.roots);
        Ok(Leaf::verified(
            chain,
            &key,
            &self.roots,
            &self.settings.identity,
            self.clock.now(),
        )?)
    }

    /// The roots of the mounted bundle, where they are not those that are trusted
    /// anyway.
    async fn mounted_roots(&self) -> Option<Roots> {
        let path = &self.settings.trust_bundle;
        let read = tokio::fs::read_to_string(path).await;
        let read = read.map_err(|error| error.to_string()).and_then(|bundle| {
            let roots = Roots::from_pem(&self.settings.identity, &bundle);
            roots.map_err(|error| error.to_string())
        });
        match read {
            Ok(roots) if roots.certificates() == self.roots.certificates() => None,
            Ok(roots) => {
                tracing::warn!(
                    bundle = %path.display(),
                    "the controller's authority is unknown, asking for a certificate with the mounted trust bundle"
                );
                Some(roots)
            }
            Err(error) => {
                tracing::warn!(bundle = %path.display(), error, "the mounted trust bundle cannot be used");
                None
            }
        }
    }

    fn trust(&self, roots: Vec<Vec<u8>>) {
        if roots.is_empty() {
            return;
        }
        if let Err(error) = self
            .roots
            .replace(roots.into_iter().map(CertificateDer::from).collect())
        {
            tracing::warn!(%error, "the controller sent roots that cannot be used, keeping those before");
        }
    }

    async fn keep_streaming(
        &self,
        mut certified: watch::Receiver<bool>,
        configured: watch::Sender<bool>,
        contact: &watch::Sender<Contact>,
        doubt: &Doubt,
    ) {
        if certified.wait_for(|certified| *certified).await.is_err() {
            return;
        }
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        loop {
            let ended = self.stream(&configured, contact, &mut backoff, doubt).await;
            self.state.metrics.control_connected.set(0);
            contact.send_modify(|contact| contact.streaming = false);
            match ended {
                // The controller ends streams now and then, so that replicas share them.
                Ok(()) => tracing::debug!("the controller ended the stream, opening another"),
                Err(error) => tracing::info!(%error, "no stream from the controller, trying again"),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    async fn stream(
        &self,
        configured: &watch::Sender<bool>,
        contact: &watch::Sender<Contact>,
        backoff: &mut Backoff,
        doubt: &Doubt,
    ) -> Result<(), BoxError> {
        let config = tls::mesh_client_config(
            &self.roots,
            &self.certs,
            self.settings.controller_identity.clone(),
            &[H2_ALPN],
        );
        let channel = self.channel(config, contact, Some(doubt)).await?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (reports, reported) = mpsc::channel(REPORTS);
        let reported = ReceiverStream::new(reported)
            .map(|report| from_proxy(v1::from_proxy::Message::Report(report)));
        let outgoing = futures::stream::select(ReceiverStream::new(messages), reported);
        let mut asked = self.state.wanted();
        let hello = v1::Hello {
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            held: self.state.snapshot().held(),
            destinations: names(&asked),
        };
        outbox.try_send(from_proxy(v1::from_proxy::Message::Hello(hello)))?;
        let mut batches = ControlClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .stream(outgoing)
            .await
            .map_err(|status| format!("the controller refused a stream: {}", status.message()))?
            .into_inner();
        let mut reports = std::pin::pin!(self.report(reports));
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        loop {
            tokio::select! {
                message = batches.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    let Some(v1::to_proxy::Message::Batch(batch)) = message.message else { continue };
                    outbox.try_send(self.take(batch))?;
                    self.state.metrics.control_connected.set(1);
                    contact.send_if_modified(|contact| {
                        contact.unreachable = false;
                        !std::mem::replace(&mut contact.streaming, true)
                    });
                    backoff.reset();
                    if self.state.snapshot().is_complete() {
                        configured.send_if_modified(|configured| !std::mem::replace(configured, true));
                    }
                }
                () = self.state.asked.notified() => self.subscribe(&outbox, &mut asked)?,
                _ = tidy.tick() => self.subscribe(&outbox, &mut asked)?,
                () = &mut reports => return Err("the stream takes no reports".into()),
            }
        }
    }

    /// Tells what was counted, once the controller has answered: the first
    /// message of a stream is Hello.
    async fn report(&self, stream: mpsc::Sender<v1::Report>) {
        self.state.reports.feed(stream).await;
    }

    /// Applies a batch and says how that went.
    fn take(&self, batch: v1::Batch) -> v1::FromProxy {
        let id = batch.id;
        let brings_roots = batch
            .set
            .iter()
            .any(|resource| resource.name == wire::names::BUNDLE);
        let nacks = self.state.apply(batch);
        for nack in &nacks {
            tracing::warn!(
                resource = nack.name,
                reason = nack.reason,
                "kept the former version of a resource"
            );
        }
        if brings_roots {
            self.trust(self.state.snapshot().roots.clone());
        }
        from_proxy(v1::from_proxy::Message::Ack(v1::Ack { batch: id, nacks }))
    }

    fn subscribe(
        &self,
        outbox: &mpsc::Sender<v1::FromProxy>,
        asked: &mut HashSet<SocketAddr>,
    ) -> Result<(), BoxError> {
        let wanted = self.state.wanted();
        let add: HashSet<SocketAddr> = wanted.difference(asked).copied().collect();
        let remove: HashSet<SocketAddr> = asked.difference(&wanted).copied().collect();
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let change = v1::Subscribe {
            add: names(&add),
            remove: names(&remove),
        };
        outbox.try_send(from_proxy(v1::from_proxy::Message::Subscribe(change)))?;
        *asked = wanted;
        Ok(())
    }

    /// One connection to whichever controller answers first. Tells `doubt` of one
    /// whose authority is unknown.
    async fn channel(
        &self,
        config: Arc<rustls::ClientConfig>,
        contact: &watch::Sender<Contact>,
        doubt: Option<&Doubt>,
    ) -> Result<Channel, BoxError> {
        let secured = timeout(CONNECT_WITHIN, self.connect(config, doubt)).await;
        let unreachable = !matches!(secured, Ok(Ok(_)));
        contact.send_if_modified(|contact| {
            std::mem::replace(&mut contact.unreachable, unreachable) != unreachable
        });
        let secured = secured
            .map_err(|_| format!("{} did not answer in time", self.settings.controller))??;
        let io = std::sync::Mutex::new(Some(TokioIo::new(secured)));
        // One connection, made already: when it ends, so does the stream.
        let connector = tower::service_fn(move |_| {
            let io = io.lock().ok().and_then(|mut io| io.take());
            std::future::ready(io.ok_or_else(|| std::io::Error::other("the connection has ended")))
        });
        Ok(Endpoint::from_static("http://weft-controller")
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await?)
    }

    async fn connect(
        &self,
        config: Arc<rustls::ClientConfig>,
        doubt: Option<&Doubt>,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, BoxError> {
        let controller = &self.settings.controller;
        let addresses = tokio::net::lookup_host(controller)
            .await
            .map_err(|error| format!("{controller} has no address: {error}"))?;
        let mut last: BoxError = format!("{controller} has no address").into();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
                    let secured = connector.connect(tls::peer_name(), stream).await;
                    let why = secured.as_ref().err().and_then(IdentityError::from_io);
                    if let (Some(IdentityError::UnknownAuthority), Some(doubt)) = (why, doubt) {
                        doubt.raise();
                    }
                    return Ok(secured?);
                }
                Err(error) => last = format!("{address}: {error}").into(),
            }
        }
        Err(last)
    }

    /// Until the first certificate the mounted file decides whom to trust; it
    /// also carries the mark that the mesh is going away.
    async fn watch_bundle(
        &self,
        leaving: watch::Sender<Leaving>,
        mut contact: watch::Receiver<Contact>,
    ) {
        let mark = self.settings.trust_bundle.with_file_name("leaving");
        let mut last = String::new();
        loop {
            let marked = tokio::fs::read_to_string(&mark)
                .await
                .is_ok_and(|mark| mark.trim() == "true");
            let facts = Facts {
                marked,
                contact: *contact.borrow_and_update(),
                configured: self.state.snapshot().is_complete(),
                certificate_until: self.certs.not_after(),
            };
            let judged = facts.judge(self.clock.now());
            leaving.send_if_modified(|leaving| std::mem::replace(leaving, judged) != judged);
            if self.certs.current().is_none()
                && let Ok(bundle) = tokio::fs::read_to_string(&self.settings.trust_bundle).await
                && bundle != last
            {
                if let Err(error) = self.roots.replace_pem(&bundle) {
                    tracing::warn!(%error, "the trust bundle cannot be used");
                }
                last = bundle;
            }
            tokio::select! {
                () = sleep(BUNDLE_EVERY) => {}
                // A controller that answers outweighs the mark at once.
                Ok(()) = contact.changed() => {}
            }
        }
    }
}

fn names(addrs: &HashSet<SocketAddr>) -> Vec<String> {
    addrs
        .iter()
        .map(|addr| wire::names::destination(addr.ip(), addr.port()))
        .collect()
}

const fn from_proxy(message: v1::from_proxy::Message) -> v1::FromProxy {
    v1::FromProxy {
        message: Some(message),
    }
}

#[cfg(test)]
mod tests;
