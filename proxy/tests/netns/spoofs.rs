//! Calls of the tests of egress, each with what must become of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::world::{RECEIVED, Said, World, hello, in_two_records};

/// The address of `pay.example`, and of all names below `api.example`.
pub(crate) const PAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
/// Of a host that no object gives.
pub(crate) const EVIL: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 101, 7));
/// The same in IPv6.
pub(crate) const EVIL6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 7));
/// In the network that an object gives, and the next address behind it.
pub(crate) const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 15));
pub(crate) const BEYOND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 16));
pub(crate) const NETWORK: &str = "192.0.2.0/28";
/// What the controller has not explained.
pub(crate) const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 99));

/// Ports of both objects. Those of the hosts are the same, and one more.
pub(crate) const HTTP: u16 = 80;
pub(crate) const TLS: u16 = 443;
pub(crate) const BYTES: u16 = 5432;
pub(crate) const OTHER: u16 = 8080;

/// After the first part of a call, for its answer.
const ANSWERED: Duration = Duration::from_millis(500);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It comes to this host, and is answered.
    Received(IpAddr),
    /// 403 with the reason.
    Refused,
    /// The same, behind an answer to what came first on the connection.
    RefusedSecond,
    /// Any answer but that of a host, or none.
    Unserved,
    /// The connection ends, and nothing was answered.
    Reset,
}

pub(crate) struct Call {
    /// Stands in what is sent, so that it can be found where it arrives.
    mark: String,
    pub(crate) to: SocketAddr,
    pub(crate) parts: Vec<Vec<u8>>,
    pub(crate) pause: Duration,
    fate: Fate,
}

impl Call {
    /// Sent at once.
    pub(crate) fn new(
        mark: &str,
        to: (IpAddr, u16),
        bytes: impl Into<Vec<u8>>,
        fate: Fate,
    ) -> Self {
        Self {
            mark: mark.to_owned(),
            to: to.into(),
            parts: vec![bytes.into()],
            pause: Duration::ZERO,
            fate,
        }
    }

    /// A request for this host.
    pub(crate) fn get(mark: &str, to: (IpAddr, u16), host: &str, fate: Fate) -> Self {
        Self::new(mark, to, get(mark, host), fate)
    }

    /// The same bytes one by one.
    fn byte_by_byte(mut self) -> Self {
        self.parts = self
            .parts
            .concat()
            .into_iter()
            .map(|byte| vec![byte])
            .collect();
        self
    }

    #[track_caller]
    pub(crate) fn check(&self, said: &Said, world: &World) {
        let came = world.hosts_of(&self.mark);
        let ok = said.answer.contains("HTTP/1.1 200") || said.answer.contains(RECEIVED);
        let refused = said.answer.contains("HTTP/1.1 403")
            && said.answer.contains("weft-reason: egress-denied\r\n");
        let fits = match self.fate {
            Fate::Received(host) => ok && !came.is_empty() && came.iter().all(|at| *at == host),
            Fate::Refused => refused && !ok,
            Fate::RefusedSecond => refused && ok,
            Fate::Unserved => !ok,
            Fate::Reset => said.ended && said.answer.is_empty(),
        };
        let mark = &self.mark;
        assert!(
            fits,
            "{mark}: not {:?}: {said:?}, came to {came:?}",
            self.fate
        );
        let arrives = matches!(self.fate, Fate::Received(_));
        assert!(arrives || came.is_empty(), "{mark} came to {came:?}");
    }
}

fn get(mark: &str, host: &str) -> String {
    format!("GET /{mark} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// A request after which the connection stays.
fn first() -> String {
    "GET /first HTTP/1.1\r\nHost: pay.example\r\n\r\n".to_owned()
}

pub(crate) fn below(name: &str) -> String {
    format!("{name}.api.example")
}

/// Calls that an object gives.
pub(crate) fn named() -> Vec<Call> {
    let sni = |mark: &str| hello(&below(mark), Vec::new());
    let received = Fate::Received(PAY);
    vec![
        Call::get("named-host", (PAY, HTTP), "pay.example", received),
        Call::get("named-spelt", (PAY, HTTP), "Pay.EXAMPLE:80", received),
        Call::get("named-below", (PAY, HTTP), "a.b.api.example", received),
        // A name is what the caller says: it leads to the name's own address.
        Call::get("named-dialled", (EVIL, HTTP), "pay.example", received),
        Call::get(
            "named-network",
            (NEAR, HTTP),
            "any.example",
            Fate::Received(NEAR),
        ),
        Call::new("named-sni", (PAY, TLS), sni("named-sni"), received),
        Call::new("named-slow", (PAY, TLS), sni("named-slow"), received).byte_by_byte(),
        Call::new(
            "named-parts",
            (PAY, TLS),
            in_two_records(&sni("named-parts")),
            received,
        ),
        Call::new("named-turned", (EVIL, TLS), sni("named-turned"), received),
        Call::new("named-bytes", (PAY, BYTES), "named-bytes\n", received),
        Call::new(
            "named-near",
            (NEAR, BYTES),
            "named-near\n",
            Fate::Received(NEAR),
        ),
    ]
}

/// Requests that name, or seem to name, a host that an object gives, and are for another one.
pub(crate) fn spoofed_requests() -> Vec<Call> {
    let refused = |mark: &str, to, host: &str| Call::get(mark, to, host, Fate::Refused);
    let raw = |mark: &str, bytes: String| Call::new(mark, (PAY, HTTP), bytes, Fate::Unserved);
    let second = |mark: &str| format!("{}{}", first(), get(mark, "evil.example"));
    let kept = [first(), get("spoof-kept", "evil.example")];
    vec![
        refused("spoof-address", (PAY, HTTP), "evil.example"),
        refused("spoof-elsewhere", (EVIL, HTTP), "evil.example"),
        refused("spoof-longer", (PAY, HTTP), "pay.example.evil.example"),
        refused("spoof-suffix", (PAY, HTTP), "notpay.example"),
        refused("spoof-apex", (PAY, HTTP), "api.example"),
        refused("spoof-joined", (PAY, HTTP), "xapi.example"),
        refused("spoof-port", (PAY, OTHER), "pay.example"),
        refused("spoof-beyond", (BEYOND, HTTP), "any.example"),
        refused("spoof-ipv6", (EVIL6, HTTP), "evil.example"),
        refused("spoof-numbers", (PAY, HTTP), "198.51.100.7"),
        // A host whose every answer lies inside the cluster, where there is no endpoint.
        Call::get(
            "spoof-inside",
            (EVIL, HTTP),
            "turned.example",
            Fate::Unserved,
        ),
        Call::get(
            "spoof-unknown",
            (UNKNOWN, HTTP),
            "evil.example",
            Fate::Unserved,
        ),
        Call::get("spoof-tls-port", (PAY, TLS), "pay.example", Fate::Unserved),
        Call::get(
            "spoof-bytes-port",
            (EVIL, BYTES),
            "pay.example",
            Fate::Unserved,
        ),
        raw("spoof-user", get("spoof-user", "pay.example@evil.example")),
        raw(
            "spoof-words",
            get("spoof-words", "pay.example evil.example"),
        ),
        raw("spoof-none", "GET /spoof-none HTTP/1.0\r\n\r\n".to_owned()),
        raw("spoof-two", {
            let hosts = "Host: pay.example\r\nHost: evil.example";
            format!("GET /spoof-two HTTP/1.1\r\n{hosts}\r\nConnection: close\r\n\r\n")
        }),
        raw(
            "spoof-absolute",
            get("spoof-absolute", "pay.example").replace("GET ", "GET http://evil.example"),
        ),
        raw(
            "spoof-connect",
            get("", "pay.example").replace("GET /", "CONNECT spoof-connect.example:443"),
        ),
        Call::new(
            "spoof-pipelined",
            (PAY, HTTP),
            second("spoof-pipelined"),
            Fate::RefusedSecond,
        ),
        Call {
            parts: kept.map(String::into_bytes).to_vec(),
            pause: ANSWERED,
            ..Call::new("spoof-kept", (PAY, HTTP), "", Fate::RefusedSecond)
        },
    ]
}

/// The same of bytes. Their server name, where they have one, is the mark.
pub(crate) fn spoofed_bytes() -> Vec<Call> {
    let sni = |mark: &str| hello(&format!("{mark}.example"), Vec::new());
    let reset = |mark: &str, to, bytes: Vec<u8>| Call::new(mark, to, bytes, Fate::Reset);
    let half = sni("spoof-half");
    // More than is waited for, though its name comes early.
    let long = hello(&below("spoof-long"), vec![vec![b'a'; 250]; 80]);
    vec![
        reset("spoof-sni", (PAY, TLS), sni("spoof-sni")),
        reset("spoof-away", (EVIL, TLS), sni("spoof-away")),
        reset(
            "spoof-nameless",
            (PAY, TLS),
            hello("198.51.100.7", Vec::new()),
        ),
        reset("spoof-slow", (PAY, TLS), sni("spoof-slow")).byte_by_byte(),
        reset(
            "spoof-parts",
            (PAY, TLS),
            in_two_records(&sni("spoof-parts")),
        ),
        reset("spoof-half", (PAY, TLS), half[..half.len() / 2].to_vec()),
        reset("spoof-long", (PAY, TLS), long),
        reset(
            "spoof-http-port",
            (PAY, HTTP),
            hello(&below("spoof-http-port"), Vec::new()),
        ),
        reset("spoof-bytes", (EVIL, BYTES), b"spoof-bytes\n".to_vec()),
        reset("spoof-behind", (BEYOND, BYTES), b"spoof-behind\n".to_vec()),
        // It waits for the other end, to which no connection is made.
        reset("spoof-silent", (EVIL, BYTES), Vec::new()),
    ]
}

/// First messages of TLS clients that are not ours, and how each client is called.
pub(crate) fn foreign_hellos() -> Vec<(&'static str, Vec<u8>)> {
    let lines = include_str!("hellos.txt").lines();
    let hellos = lines.filter(|line| !line.starts_with('#'));
    let read = hellos.map(|line| {
        let (client, message) = line.split_once(' ').unwrap();
        let bytes = message.as_bytes().chunks(2).map(|digits| {
            let digits = std::str::from_utf8(digits).unwrap();
            u8::from_str_radix(digits, 16).unwrap()
        });
        (client, bytes.collect())
    });
    read.collect()
}

/// The name that such a message asks for, below one that an object gives.
pub(crate) fn foreign(client: &str) -> String {
    below(&format!("foreign-{client}"))
}

/// What these clients say first: as it is, which an object gives, and with one letter changed.
pub(crate) fn foreign_calls() -> Vec<Call> {
    let calls = foreign_hellos().into_iter().flat_map(|(client, hello)| {
        let name = foreign(client);
        let other = name.replace("api.example", "apy.example");
        let at = hello
            .windows(name.len())
            .position(|part| part == name.as_bytes());
        let at = at.expect("it asks for this name");
        let mut spoof = hello.clone();
        spoof[at..at + name.len()].copy_from_slice(other.as_bytes());
        [
            Call::new(&name, (PAY, TLS), hello, Fate::Received(PAY)),
            Call::new(&other, (PAY, TLS), spoof, Fate::Reset),
        ]
    });
    calls.collect()
}
