//! Which address a server opens that is to be reached from everywhere.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// All addresses of both families; only IPv4 where the kernel knows nothing else.
#[must_use]
pub fn everywhere(port: u16) -> SocketAddr {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let probe = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    match TcpListener::bind(probe) {
        Ok(_) => both,
        Err(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

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
