//! Listening sockets: the address that a server binds to be reached from everywhere, and the accept
//! loop, which lasts as long as the process.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::files;

/// All addresses of both families; only IPv4 where the kernel knows nothing else.
#[must_use]
pub fn everywhere(port: u16) -> SocketAddr {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let probe = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    match std::net::TcpListener::bind(probe) {
        Ok(_) => both,
        Err(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    }
}

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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_ipv4_caller_reaches_what_listens_everywhere() {
        let listener = TcpListener::bind(everywhere(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (_, caller) = listener.accept().unwrap();
        assert_eq!(caller.ip().to_canonical(), Ipv4Addr::LOCALHOST);
    }
}
