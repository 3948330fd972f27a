//! Opens and closes the ports of a Gateway's pod as the configuration says, and accepts connections
//! of clients at them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use policy::gateway::client_network;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weft_proxy::{GatewayConfig, Permits, listen, no_ipv6};
use weft_proxy_net::connect;

use crate::connection::{Client, Shared, serve};
use crate::serving::Serving;

/// Wait after a failed accept (out of file descriptors), so it cannot spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A port that could not be opened is tried again after this.
pub(crate) const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Where connections are accepted, and with what they are served.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) shared: Arc<Shared>,
    pub(crate) permits: Permits,
    /// Connections that came in.
    pub(crate) came: Arc<AtomicU64>,
}

/// A port that is open; closed when dropped. Its connections go on.
#[derive(Debug, Default)]
struct OpenPort(Vec<JoinHandle<()>>);

impl Drop for OpenPort {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// All addresses of a pod.
pub(crate) fn everywhere() -> Vec<IpAddr> {
    vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
}

/// Serves what the configuration says on these addresses, for ever. `opened` becomes true once a
/// first one has come, and its ports are open as far as they can be.
pub(crate) async fn follow(door: Door, addresses: Vec<IpAddr>, opened: watch::Sender<bool>) {
    let config = &door.shared.proxy.config;
    let mut changes = config.changes();
    let mut open: HashMap<u16, OpenPort> = HashMap::new();
    let mut seen: Option<Arc<GatewayConfig>> = None;
    loop {
        changes.mark_unchanged();
        let gateway = config.snapshot().gateway.clone();
        let is_new = match (&seen, &gateway) {
            (Some(seen), Some(now)) => !Arc::ptr_eq(seen, now),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if let Some(now) = &gateway
            && is_new
        {
            let next = Arc::new(Serving::of(now, &door.shared.serving.borrow()));
            let ports = next.ports();
            // Before the ports, so that what comes in at a new one is served.
            door.shared.serving.send_if_modified(|serving| {
                let differs = !next.has_same_listeners(serving);
                *serving = next;
                differs
            });
            open.retain(|port, _| ports.contains(port));
        }
        seen = gateway;
        let all = open_missing(&door, &addresses, &mut open);
        if config.is_configured() {
            opened.send_replace(true);
        }
        // Its sender lives as long as the proxy.
        if all {
            let _ = changes.changed().await;
        } else {
            let _ = timeout(TRY_AGAIN, changes.changed()).await;
        }
    }
}

/// Opens each port that is not open yet; `false` where one cannot be opened.
fn open_missing(door: &Door, addresses: &[IpAddr], open: &mut HashMap<u16, OpenPort>) -> bool {
    let ports = door.shared.serving.borrow().ports();
    let mut all = true;
    for target_port in ports {
        if open.contains_key(&target_port) {
            continue;
        }
        match open_port(door, addresses, target_port) {
            Ok(port) => {
                tracing::info!(port = target_port, "opened a port");
                open.insert(target_port, port);
            }
            Err(error) => {
                tracing::error!(port = target_port, %error, "could not open a port");
                all = false;
            }
        }
    }
    all
}

fn open_port(door: &Door, addresses: &[IpAddr], target_port: u16) -> std::io::Result<OpenPort> {
    let mut port = OpenPort::default();
    for ip in addresses {
        let socket = match listen(SocketAddr::new(*ip, target_port)) {
            Ok(socket) => socket,
            Err(error) if ip.is_ipv6() && no_ipv6(&error) => continue,
            Err(error) => return Err(error),
        };
        let accepting = accept(door.clone(), socket, target_port);
        port.0.push(runtime::task::spawn("accept", accepting));
    }
    Ok(port)
}

/// Serves what comes in on one socket, for ever.
async fn accept(door: Door, socket: TcpListener, target_port: u16) {
    let proxy = &door.shared.proxy;
    loop {
        let (stream, addr) = match socket.accept().await {
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
        door.came.fetch_add(1, Relaxed);
        poll_fn(|cx| proxy.budget().poll_room(cx)).await;
        let holder = client_network(addr.ip()).into();
        let admitted = door.permits.occupancy.admit(holder);
        let Ok(permit) = admitted.await else {
            connect::reset(&stream);
            continue;
        };
        connect::tune(&stream);
        let client = Client {
            stream,
            addr,
            target_port,
            permit,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "one connection's: its panic ends that connection only"
        )]
        tokio::spawn(keep_connection(Arc::clone(&door.shared), client));
    }
}

/// One accepted connection, for as long as it may keep its permit.
async fn keep_connection(shared: Arc<Shared>, client: Client) {
    let open = &shared.proxy.telemetry.metrics.open_connections;
    open.inc();
    let permit = Arc::clone(&client.permit);
    permit.keep(serve(&shared, client)).await;
    open.dec();
}
