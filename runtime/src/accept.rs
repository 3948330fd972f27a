//! Takes connections from a listening socket for as long as the process lives.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::files;

/// Wait after a failed accept (out of file descriptors), so it cannot spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The next connection, however long it takes; `port` is for the log. `ran_out` counts
/// that no further file may be opened for one.
///
/// May be dropped at any time, and no connection is lost by it.
pub async fn next(
    listener: &TcpListener,
    port: &'static str,
    ran_out: impl Fn(),
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                if files::ran_out(&error) {
                    ran_out();
                }
                warn!(%error, port, "could not accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
