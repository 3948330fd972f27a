//! A packet socket on the machine that the local cluster runs on. Whatever goes
//! from node to node crosses a bridge there.

use std::{
    collections::HashSet,
    io::{ErrorKind, Read as _},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

/// ETH_P_ALL of `linux/if_ether.h`; the kernel wants it in network order.
const EVERY_PROTOCOL: u16 = 0x0003;
const TCP: u8 = 6;
/// Longest packet that segmentation offload makes.
const LONGEST: usize = 64 * 1024;
/// Packets that are kept; a few requests make a few hundred.
const KEPT: usize = 100_000;
/// How soon an idle sniffer notices that it should stop.
const NOTICE: Duration = Duration::from_millis(100);
/// A whole burst must fit while this thread waits for a processor.
const QUEUE: usize = 4 << 20;

/// One TCP segment between the two addresses.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
    pub(crate) payload: Vec<u8>,
}

/// Collects until it is stopped.
pub(crate) struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<Packet>>>,
}

impl Sniffer {
    /// Listens for segments between these two, in both directions.
    pub(crate) fn start(between: [Ipv4Addr; 2]) -> anyhow::Result<Self> {
        let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
        // DGRAM: the kernel takes the link's header off, a packet begins with IP.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).context(
            "open a packet socket: this test must run as root on the machine of the local cluster",
        )?;
        socket.set_recv_buffer_size(QUEUE)?;
        socket.set_read_timeout(Some(NOTICE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || collect(socket, between, &stopped));
        Ok(Self { stop, thread })
    }

    /// What was seen, each segment once although it crosses several interfaces.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<Packet>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(packets) => packets,
            Err(_) => bail!("the sniffer panicked"),
        }
    }
}

fn collect(
    mut socket: Socket,
    between: [Ipv4Addr; 2],
    stopped: &AtomicBool,
) -> anyhow::Result<Vec<Packet>> {
    let (mut packets, mut seen) = (Vec::new(), HashSet::new());
    let mut buffer = vec![0; LONGEST];
    while !stopped.load(Ordering::Relaxed) {
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) =>
            {
                continue;
            }
            Err(error) => return Err(error).context("read packets"),
        };
        let Some((key, packet)) = buffer.get(..length).and_then(|ip| segment(ip, between)) else {
            continue;
        };
        if seen.insert(key) {
            ensure!(packets.len() < KEPT, "more than {KEPT} packets");
            packets.push(packet);
        }
    }
    Ok(packets)
}

/// Ports, sequence number and length tell whether a segment was seen before.
type Key = (u16, u16, u32, usize);

/// An IPv4 packet's TCP segment, when it goes between the two.
fn segment(ip: &[u8], between: [Ipv4Addr; 2]) -> Option<(Key, Packet)> {
    let [first, ..] = *ip else { return None };
    if first >> 4 != 4 || *ip.get(9)? != TCP {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(*ip.get(at..)?.first_chunk::<4>()?));
    let ends = [address(12)?, address(16)?];
    if ends != between && ends != [between[1], between[0]] {
        return None;
    }
    let word = |at: usize, bytes: &[u8]| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    // A link pads short frames; what is behind the packet's own length is not it.
    let total = usize::from(word(2, ip)?).min(ip.len());
    let tcp = ip.get(usize::from(first & 0x0f) * 4..total)?;
    let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
    let payload = tcp.get(usize::from(*tcp.get(12)? >> 4) * 4..)?;
    let (from_port, to_port) = (word(0, tcp)?, word(2, tcp)?);
    let key = (from_port, to_port, sequence, payload.len());
    Some((
        key,
        Packet {
            from_port,
            to_port,
            payload: payload.to_vec(),
        },
    ))
}

/// True when `needle` is somewhere in `bytes`.
pub(crate) fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// TLS records with application data that begin in this segment, which must
/// begin with one itself.
pub(crate) fn application_records(mut payload: &[u8]) -> usize {
    let mut records = 0;
    while let [0x17, 0x03, 0x03, high, low, rest @ ..] = payload {
        records += 1;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        payload = rest.get(length..).unwrap_or_default();
    }
    records
}
