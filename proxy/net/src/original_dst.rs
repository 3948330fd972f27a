//! The original destination of a redirected connection, read from the kernel.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::SockRef;

/// The destination that the caller of an accepted connection dialled.
///
/// An IPv4 address comes back as one, also from a listener on `[::]`.
///
/// # Errors
/// When the connection was not redirected (`AddrNotAvailable`: the caller dialled the proxy's own
/// port), or when the kernel does not know it.
pub fn original_dst(stream: &impl AsFd) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = plain(address(&socket.local_addr()?)?);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4()?,
        SocketAddr::V6(_) => socket.original_dst_v6()?,
    };
    let original = plain(address(&original)?);
    // The kernel tracks direct connections too, and names their real address.
    if (original.ip(), original.port()) == (local.ip(), local.port()) {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "the connection was not redirected: it was made to the proxy's own port",
        ));
    }
    Ok(original)
}

fn address(raw: &socket2::SockAddr) -> io::Result<SocketAddr> {
    raw.as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an IP socket"))
}

/// `::ffff:a.b.c.d`, as listeners on `[::]` see IPv4, becomes `a.b.c.d`.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connection_to_the_port_itself_has_no_original_destination() {
        for at in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(at).unwrap();
            let _client = TcpStream::connect(("localhost", listener.local_addr().unwrap().port()))
                .or_else(|_| TcpStream::connect(listener.local_addr().unwrap()))
                .unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert!(original_dst(&accepted).is_err(), "{at}");
        }
    }

    #[test]
    fn mapped_addresses_become_plain_ones() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:80".parse().unwrap();
        assert_eq!(plain(mapped), "192.0.2.7:80".parse().unwrap());
        let real: SocketAddr = "[2001:db8::7]:80".parse().unwrap();
        assert_eq!(plain(real), real);
    }
}
