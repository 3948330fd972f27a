//! One connection to whichever controller answers first.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::IdentityError;
use identity::tls;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::control::leaving::Contact;
use crate::control::{BoxError, Control, Doubt};

/// Resolving the controller's name and connecting to one of its addresses.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

impl Control {
    /// One connection to whichever controller answers first. Reports one of unknown authority to
    /// `doubt`.
    pub(super) async fn channel(
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
            .map_err(|_| format!("{} did not answer in time", self.controller.address))??;
        let io = parking_lot::Mutex::new(Some(TokioIo::new(secured)));
        // One connection, made already: when it ends, so does the stream.
        let connector = tower::service_fn(move |_| {
            let io = io.lock().take();
            std::future::ready(io.ok_or_else(|| std::io::Error::other("the connection has ended")))
        });
        Ok(Endpoint::from_static("http://weft-controller")
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await?)
    }

    pub(super) async fn connect(
        &self,
        config: Arc<rustls::ClientConfig>,
        doubt: Option<&Doubt>,
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
}
