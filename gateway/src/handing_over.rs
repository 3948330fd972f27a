//! Accepts connections of proxies of the mesh, on port 15108, by which they hand over calls that are to
//! leave the mesh by this Gateway (egress gateways). The port is open whatever the listeners are; the
//! crate `proxy` serves the connections, in `outbound/handed_over.rs`.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use runtime::occupancy::Permit;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use weft_proxy::{MESH_PORT, Permits, Proxy, listen, no_ipv6, serve_handed_over};
use weft_proxy_net::connect;

use crate::ports::{ACCEPT_PAUSE, TRY_AGAIN};

/// Accepts on these addresses, for ever.
pub(crate) fn accept(
    proxy: &Arc<Proxy>,
    permits: &Permits,
    addresses: &[IpAddr],
) -> Vec<JoinHandle<()>> {
    let accepting = addresses.iter().map(|ip| {
        let addr = SocketAddr::new(*ip, MESH_PORT);
        let accepting = accept_at(Arc::clone(proxy), permits.clone(), addr);
        runtime::task::spawn("accept", accepting)
    });
    accepting.collect()
}

async fn accept_at(proxy: Arc<Proxy>, permits: Permits, addr: SocketAddr) {
    let Some(socket) = open(addr).await else {
        return;
    };
    loop {
        let (stream, caller) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if runtime::files::ran_out(&error) {
                    proxy.telemetry.metrics.limit("open-files");
                }
                tracing::warn!(%error, "could not accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        poll_fn(|cx| proxy.budget().poll_room(cx)).await;
        let Ok(permit) = permits.occupancy.admit(caller.ip().into()).await else {
            connect::reset(&stream);
            continue;
        };
        connect::tune(&stream);
        #[expect(
            clippy::disallowed_methods,
            reason = "one connection's: its panic ends that connection only"
        )]
        tokio::spawn(keep_connection(Arc::clone(&proxy), stream, permit));
    }
}

/// The socket, once the port is free; `None` where there is no IPv6.
async fn open(addr: SocketAddr) -> Option<TcpListener> {
    loop {
        match listen(addr) {
            Ok(socket) => return Some(socket),
            Err(error) if addr.is_ipv6() && no_ipv6(&error) => return None,
            Err(error) => {
                tracing::error!(port = addr.port(), %error, "could not open a port");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

/// One accepted connection, for as long as it may keep its permit.
async fn keep_connection(proxy: Arc<Proxy>, stream: TcpStream, permit: Arc<Permit>) {
    let open = proxy.telemetry.metrics.open_connections.clone();
    open.inc();
    let kept = Arc::clone(&permit);
    kept.keep(Box::pin(serve_handed_over(proxy, stream, permit)))
        .await;
    open.dec();
}
