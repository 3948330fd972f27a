//! The control stream of the proxy: gets a certificate and renews it, connects to a controller, and
//! applies the batches that it sends.
//!
//! Configuration never expires: while no controller answers, the last snapshot serves. A
//! certificate does expire, so it is renewed well before its end by the wall clock, and a failed
//! renewal keeps the valid one.
//!
//! The controller sends the trusted roots. A proxy that missed their replacement cannot receive
//! the new ones; then one connection, which requests a certificate, trusts the mounted bundle as
//! the first one of all did.
//!
//! Imports `config`, `endpoints`, `settings` and `telemetry`.

pub(crate) mod breaker_reports;
pub(crate) mod certificate;
mod early_reports;
pub(crate) mod leaving;
pub(crate) mod live_queries;
mod refusal;
pub(crate) mod revoked;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod trust_bundle;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::tls::{self, CertHandle};
use identity::verify::{AuthorityId, peer_identity};
use identity::{IdentityError, Roots};
use policy::name::SpiffeId;
use runtime::clock::Clock;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::config::store::Store;
use crate::control::leaving::{Contact, Leaving};
use crate::control::refusal::{AlertWatch, Flag};
use crate::settings::ControllerSettings;
use crate::telemetry::startup::StartupStep;

pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// Resolving the controller's name and connecting to one of its addresses.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What it needs and fills.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    /// Of the own workload.
    pub identity: SpiffeId,
    pub controller: Arc<ControllerSettings>,
    pub config: Arc<Store>,
    pub certs: CertHandle,
    pub roots: Roots,
    /// That peers do not take the own certificate, before its time is over.
    pub refused: Arc<Flag>,
    /// That a controller issues no other one, since the pod is revoked.
    pub denied: Arc<Flag>,
    /// Within which time the own certificate is to be under the first root, as the last bundle has
    /// it. Zero: that does not matter.
    pub renew_within: watch::Sender<Duration>,
    /// What certificates are renewed by.
    pub clock: Clock,
    /// Whether the pod is being deleted.
    pub draining: watch::Receiver<bool>,
}

/// What the rest of the process may wait for.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub certified: watch::Receiver<bool>,
    pub configured: watch::Receiver<bool>,
    /// Whether the mesh is being uninstalled, and what that means here.
    pub leaving: watch::Receiver<Leaving>,
}

impl Control {
    /// Starts it on the current runtime.
    #[must_use]
    pub(crate) fn start(self) -> Progress {
        let (certified, certified_seen) = watch::channel(false);
        let (configured, configured_seen) = watch::channel(false);
        let (leaving, leaving_seen) = watch::channel(Leaving::No);
        let contact = watch::Sender::new(Contact::default());
        let contact_seen = contact.subscribe();
        // A controller was met whose authority is unknown.
        let unknown_authority = Arc::new(Flag::default());
        let (control, unknown) = (self.clone(), Arc::clone(&unknown_authority));
        let made = contact.clone();
        runtime::task::spawn("certificate", async move {
            control.keep_certified(certified, &made, &unknown).await
        });
        let control = self.clone();
        let ready = certified_seen.clone();
        runtime::task::spawn("control stream", async move {
            control
                .keep_streaming(ready, configured, &contact, &unknown_authority)
                .await
        });
        let telemetry = Arc::clone(&self.config.telemetry);
        runtime::task::spawn("slots", async move {
            telemetry.reports.keep_time().await;
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

    fn reached(&self, step: StartupStep) {
        self.config.telemetry.metrics.startup.reached(step);
    }

    /// One connection to whichever controller answers first, and what signed its certificate.
    /// Reports one of unknown authority to `unknown_authority`, and one that ends it by an alert to
    /// `alerted`.
    async fn channel(
        &self,
        config: Arc<rustls::ClientConfig>,
        contact: &watch::Sender<Contact>,
        unknown_authority: Option<&Flag>,
        alerted: Option<Arc<Flag>>,
    ) -> Result<(Channel, AuthorityId), BoxError> {
        let secured = timeout(CONNECT_WITHIN, self.connect(config, unknown_authority)).await;
        let unreachable = !matches!(secured, Ok(Ok(_)));
        contact.send_if_modified(|contact| {
            std::mem::replace(&mut contact.unreachable, unreachable) != unreachable
        });
        let secured = secured
            .map_err(|_| format!("{} did not answer in time", self.controller.address))??;
        let shown = secured.get_ref().1.peer_certificates();
        let controller = peer_identity(shown.unwrap_or_default())?;
        let watched = AlertWatch::new(secured, alerted);
        let io = parking_lot::Mutex::new(Some(TokioIo::new(watched)));
        // One connection, made already: when it ends, so does the stream.
        let connector = tower::service_fn(move |_| {
            let io = io.lock().take();
            std::future::ready(io.ok_or_else(|| std::io::Error::other("the connection has ended")))
        });
        let channel = Endpoint::from_static("http://weft-controller")
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await?;
        Ok((channel, controller.certificate.authority))
    }

    async fn connect(
        &self,
        config: Arc<rustls::ClientConfig>,
        unknown_authority: Option<&Flag>,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, BoxError> {
        let controller = &self.controller.address;
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
                    if let (Some(IdentityError::UnknownAuthority), Some(unknown_authority)) =
                        (why, unknown_authority)
                    {
                        unknown_authority.raise();
                    }
                    return Ok(secured?);
                }
                Err(error) => last = format!("{address}: {error}").into(),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests;
