//! Bounds the memory of each idle proxy's tasks on the controller, by tests of future sizes.
//!
//! A future is as large as the most that it holds across an `await`, and one variable that lives
//! too long makes it larger without a warning of the compiler. Two thousand proxies multiply each
//! of these bytes. A size that rises is a decision: the commit names what it is for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use runtime::pool::Share;
use tokio::net::TcpStream;

use super::Port;
use super::open;
use super::stream::ProxyStream;

/// Bytes of a connection, most of which hyper's HTTP/2 takes.
const CONNECTION: usize = 2816;
/// Bytes of a stream while it waits.
const STREAM: usize = 2000;
/// Bytes of what a stream knows of its proxy, without what that points to.
const PROXY: usize = 1112;

/// Bytes of the future of a function with four arguments, which need not be made.
fn of_four<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn silent_proxy_costs_no_more_than_it_did() {
    let attend = |port: Arc<Port>, socket: TcpStream, addr: SocketAddr, permit: Share<IpAddr>| {
        port.attend(socket, addr, permit)
    };
    let rows = [
        ("connection", of_four(attend), CONNECTION),
        ("stream", of_four(open::stream), STREAM),
        ("proxy", size_of::<ProxyStream<'_>>(), PROXY),
    ];
    for (what, now, _) in rows {
        println!("    {what}: {now}");
    }
    for (what, now, most) in rows {
        assert!(now > 128, "{what}: {now} bytes: it is not what is measured");
        assert!(
            now <= most,
            "{what}: {now} bytes, and at most {most} are allowed"
        );
    }
}
