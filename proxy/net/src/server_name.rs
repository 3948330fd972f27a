//! Reads the host from the first bytes of a connection: the server name of a TLS handshake, or the
//! Host of an HTTP/1 request; and whether the bytes are TLS.
//!
//! To name a connection the bytes are looked at in the socket's own buffer, as far as they have come,
//! so a relay still gets all of them. Where the server name decides where a connection goes, all of
//! the handshake's first message is read: [`hello`].
//!
//! Claims: observe-144, observe-145

use futures::FutureExt as _;
use rustls::server::Acceptor;
use tokio::net::TcpStream;

use crate::sniff::begins_tls;

/// Bytes that are looked at: a handshake with hybrid key shares has some 1 800.
const LOOKED_AT: usize = 4096;
/// Bytes before the content of a TLS record: its type, version and length.
const RECORD_HEAD: usize = 5;

/// Bytes of a handshake's first message at most, where it is waited for. The record of one has no
/// more.
pub const LONGEST_HELLO: usize = 16 * 1024;

/// The first message of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// It is for this server.
    Named(String),
    /// It names none, or is no such message.
    Nameless,
}

/// Reads the first message of a TLS handshake. `None`: not all of it has come.
#[must_use]
pub fn hello(first: &[u8]) -> Option<Hello> {
    let [0x16, rest @ ..] = first else {
        return (!first.is_empty()).then_some(Hello::Nameless);
    };
    // Its record's version and length, and what the message is.
    let [_, _, high, low, _, ..] = *rest else {
        return None;
    };
    if !begins_tls(first) {
        return Some(Hello::Nameless);
    }
    // So that a message in single bytes is read once, and not once for each byte.
    if first.len() < RECORD_HEAD + usize::from(u16::from_be_bytes([high, low])) {
        return None;
    }
    let mut acceptor = Acceptor::default();
    let mut unread = first;
    while !unread.is_empty() {
        if !matches!(acceptor.read_tls(&mut unread), Ok(1..)) {
            return Some(Hello::Nameless);
        }
    }
    match acceptor.accept() {
        Ok(None) => None,
        Ok(Some(accepted)) => {
            let name = accepted.client_hello().server_name().map(str::to_owned);
            Some(name.map_or(Hello::Nameless, Hello::Named))
        }
        Err(_) => Some(Hello::Nameless),
    }
}

/// What a client sends first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FirstWords {
    /// The host that it names.
    pub host: Option<String>,
    /// Whether it speaks TLS, also where that names no host.
    pub is_tls: bool,
}

/// What has come by now; nothing is waited for.
pub fn first_words(stream: &TcpStream) -> FirstWords {
    let mut first = [0; LOOKED_AT];
    let read = stream.peek(&mut first).now_or_never();
    let came = read.and_then(Result::ok).and_then(|read| first.get(..read));
    came.map_or_else(FirstWords::default, |came| FirstWords {
        host: of(came),
        is_tls: begins_tls(came),
    })
}

fn of(first: &[u8]) -> Option<String> {
    let name = match first.first()? {
        // A TLS record that holds a handshake.
        0x16 => server_name(first)?,
        _ => host(first)?,
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

fn server_name(mut first: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    while !first.is_empty() && acceptor.read_tls(&mut first).ok()? > 0 {}
    let accepted = acceptor.accept().ok()??;
    accepted.client_hello().server_name().map(str::to_owned)
}

/// The Host without its port.
fn host(first: &[u8]) -> Option<String> {
    let mut lines = first.split(|byte| *byte == b'\n');
    let request = lines.next()?.trim_ascii_end();
    if !request.ends_with(b"HTTP/1.1") && !request.ends_with(b"HTTP/1.0") {
        return None;
    }
    let fields = lines.take_while(|line| !line.trim_ascii().is_empty());
    let mut hosts = fields.filter_map(|line| {
        let (name, value) = line.split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"host:").then_some(value)
    });
    let host = std::str::from_utf8(hosts.next()?.trim_ascii()).ok()?;
    let authority: http::uri::Authority = host.parse().ok()?;
    Some(authority.host().trim_matches(['[', ']']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello_to(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        sent
    }

    #[test]
    fn server_name_comes_only_from_tls_or_http() {
        let tls = hello_to("API.example.com");
        assert_eq!(of(&tls).as_deref(), Some("api.example.com"));
        assert_eq!(of(&tls[..40]), None, "half a handshake");
        let nameless = hello_to("10.0.0.1");
        assert_eq!(of(&nameless), None, "an address is sent under no name");
        // That it is TLS is known all the same, and of too few bytes it is not.
        assert!(begins_tls(&tls) && begins_tls(&tls[..40]) && begins_tls(&nameless));
        let alert: &[u8] = &[0x15, 3, 3, 0, 2, 1];
        let others: [&[u8]; 4] = [&tls[..5], alert, b"GET / HTTP/1.1\r\n", b""];
        assert!(others.into_iter().all(|bytes| !begins_tls(bytes)));
        for (bytes, expected) in [
            (
                "GET / HTTP/1.1\r\nA: b\r\nhost: Shop.example:8080\r\n\r\n",
                Some("shop.example"),
            ),
            (
                "GET / HTTP/1.1\r\nHOST:shop.example.\r\n",
                Some("shop.example"),
            ),
            (
                "GET / HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n",
                Some("fd00::1"),
            ),
            ("GET / HTTP/1.1\r\n\r\nHost: body.example\r\n", None),
            ("GET / HTTP/1.1\r\nHost: two words\r\n\r\n", None),
            ("SSH-2.0-OpenSSH\r\nHost: shop.example\r\n", None),
            ("", None),
        ] {
            assert_eq!(of(bytes.as_bytes()).as_deref(), expected, "{bytes:?}");
        }
        // Bytes of all kinds are no panic.
        for seed in 0..2000_u32 {
            let noise: Vec<u8> = (0..200_u32)
                .map(|at| (seed * 31 + at * seed) as u8)
                .collect();
            let _ = (of(&noise), hello(&noise));
            let mut changed = tls.clone();
            let at = seed as usize % changed.len();
            changed[at] = changed[at].wrapping_add(seed as u8);
            let _ = (of(&changed), hello(&changed));
        }
    }

    #[test]
    fn hello_is_read_only_when_whole() {
        let named = |name: &str| Some(Hello::Named(name.to_owned()));
        let tls = hello_to("api.pay.example");
        for cut in 0..tls.len() {
            assert_eq!(hello(&tls[..cut]), None, "{cut}");
        }
        assert_eq!(hello(&tls), named("api.pay.example"));
        // What a client sends behind it is none of it.
        let more = [&tls[..], b"more"].concat();
        assert_eq!(hello(&more), named("api.pay.example"));
        // A message may lie in several records.
        let (head, message) = tls.split_at(RECORD_HEAD);
        let mut parts = Vec::new();
        for part in message.chunks(100) {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            parts.extend([head[0], head[1], head[2], length[0], length[1]]);
            parts.extend(part);
        }
        assert_eq!(hello(&parts[..parts.len() - 1]), None);
        assert_eq!(hello(&parts), named("api.pay.example"));
        assert_eq!(hello(&hello_to("10.0.0.1")), Some(Hello::Nameless));
        for other in [&b"GET / HTTP/1.1"[..], &[0x16, 3, 3, 0, 1, 2], &[0x15]] {
            assert_eq!(hello(other), Some(Hello::Nameless), "{other:?}");
        }
    }

    #[tokio::test]
    async fn looking_takes_nothing_away_and_waits_for_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let client = tokio::task::spawn_blocking(move || std::net::TcpStream::connect(at));
        let (stream, _) = listener.accept().await.unwrap();
        let mut client = client.await.unwrap().unwrap();
        let silent = FirstWords::default();
        assert_eq!(first_words(&stream), silent, "nothing came yet");
        let request = b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n";
        std::io::Write::write_all(&mut client, request).unwrap();
        stream.readable().await.unwrap();
        let first = first_words(&stream);
        assert_eq!(first.host.as_deref(), Some("shop.example"));
        assert!(!first.is_tls);
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut read = vec![0; request.len()];
        stream.read_exact(&mut read).unwrap();
        assert_eq!(read, request);
    }
}
