//! Byte streams with one direction closed: a reader that got the close gets all bytes, though the
//! other direction is cut off, and the open direction goes on while it may.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::answers::policy_of;
use super::deadlines::SWITCHED;
use super::idle::idle;
use super::mirrors::restrict_to_read_only;
use super::outside::external;
use super::switching::{WEBSOCKET, accept_upgrade, head};
use crate::support::{listening, pair, vip};

/// More than a reader's socket takes by itself, less than those of a reader and a writer.
const ALL: usize = 256 * 1024;

/// The application's side of an upgrade that `caller` requests.
async fn upgraded(caller: &mut TcpStream, application: &TcpListener) -> TcpStream {
    caller.write_all(WEBSOCKET).await.unwrap();
    let mut serving = accept_upgrade(application).await;
    serving.write_all(SWITCHED.as_bytes()).await.unwrap();
    let answer = head(caller).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    serving
}

/// Sends `ALL` bytes, and closes the direction if `closes`.
async fn say(serving: &mut TcpStream, closes: bool) {
    serving.write_all(&vec![b'x'; ALL]).await.unwrap();
    if closes {
        serving.shutdown().await.unwrap();
    }
}

/// Bytes up to the end; an error where the end is a reset.
async fn rest(stream: &mut TcpStream) -> io::Result<usize> {
    let mut all = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await;
    read.expect("it ends")
}

#[tokio::test]
async fn idle_relay_completes_closed_side_and_resets_other() {
    for closes in [true, false] {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let application = listening(&client, &server).await;
        client.set(vec![policy_of(&idle())]);
        let mut caller = client.call(vip()).await;
        let mut serving = upgraded(&mut caller, &application).await;
        say(&mut serving, closes).await;
        assert!(rest(&mut serving).await.is_err(), "closes: {closes}");
        let read = rest(&mut caller).await;
        assert_eq!(read.is_ok_and(|got| got == ALL), closes);
    }
}

#[tokio::test]
async fn revoked_upgrade_completes_only_after_server_close() {
    for closes in [true, false] {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let application = listening(&client, &server).await;
        let port = application.local_addr().unwrap().port();
        let mut caller = server.plain(port).await;
        let mut serving = upgraded(&mut caller, &application).await;
        say(&mut serving, closes).await;
        // Until all of it has passed the proxy.
        sleep(Duration::from_millis(500)).await;
        server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
        assert!(rest(&mut serving).await.is_err(), "closes: {closes}");
        let read = rest(&mut caller).await;
        assert_eq!(read.is_ok_and(|got| got == ALL), closes);
    }
}

/// Each path of bytes that are no requests.
#[derive(Clone, Copy, Debug)]
enum Way {
    Inbound,
    ToPeer,
    Outside,
}

#[tokio::test]
async fn revoked_opaque_connection_completes_if_server_had_closed() {
    for way in [Way::Inbound, Way::ToPeer, Way::Outside] {
        for closes in [true, false] {
            let (client, server, _, _) = pair(Protocol::Opaque).await;
            let application = listening(&client, &server).await;
            let at = application.local_addr().unwrap();
            let mut caller = match way {
                Way::Inbound => server.plain(at.port()).await,
                Way::ToPeer => client.call(vip()).await,
                Way::Outside => {
                    client.set(vec![external(at)]);
                    client.call(at).await
                }
            };
            let accepted = timeout(Duration::from_secs(5), application.accept()).await;
            let (mut serving, _) = accepted.expect("it is called").unwrap();
            say(&mut serving, closes).await;
            // Until all of it has passed the proxies.
            sleep(Duration::from_millis(500)).await;
            match way {
                Way::Inbound => server.mode("api", Enforcement::Enforce, MtlsMode::Permissive),
                Way::ToPeer | Way::Outside => restrict_to_read_only(&client, &[]),
            }
            assert!(
                rest(&mut serving).await.is_err(),
                "{way:?}, closes: {closes}"
            );
            let read = rest(&mut caller).await;
            assert_eq!(read.is_ok_and(|got| got == ALL), closes, "{way:?}");
        }
    }
}

#[tokio::test]
async fn data_after_server_close_arrives_however_late_read() {
    /// More than all buffers of the path hold while the receiver does not read.
    const MUCH: usize = 16 * 1024 * 1024;
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    let mut caller = client.call(vip()).await;
    let mut serving = upgraded(&mut caller, &application).await;
    serving.shutdown().await.unwrap();
    assert_eq!(rest(&mut caller).await.unwrap(), 0);
    let sending = tokio::spawn(async move {
        caller.write_all(&vec![b'x'; MUCH]).await.unwrap();
        caller.shutdown().await.unwrap();
        caller
    });
    sleep(Duration::from_millis(300)).await;
    assert_eq!(rest(&mut serving).await.unwrap(), MUCH);
    sending.await.unwrap();
}
