//! Writes the redirection rules into the kernel over netlink, as one transaction.
//!
//! The whole table is replaced: made (so that the next step cannot fail),
//! deleted, made anew with all chains and rules. The kernel applies all of it
//! or nothing, so a second run never leaves a gap, a double or a mixture.
//!
//! Where the rules are set once, as `weft-node` does for pods, the table is made only where there
//! is none: the kernel refuses a second one, and the rules of the first are compared with those
//! that were to be written.
//!
//! A dozen messages by hand, because the crates at hand either lack `redirect`
//! or stop at the message header. Numbers are those of the kernel's
//! `linux/netfilter/nf_tables.h` and `nfnetlink.h`. Lengths and types are in
//! the machine's byte order, numbers inside nf_tables attributes in network
//! order, and values that are compared in the order of what is compared.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

mod listed;
mod netlink;

use self::listed::Listed;
use self::netlink::{Attributes, KernelAck, Message, NFTABLES};
use super::rules::{self, Chain, Forwarded, Hook, Match, PacketVerdict, Rule};
use super::settings::Settings;

/// The one table, in the namespace's list of tables.
const TABLE: &str = "weft";

/// The kernel answers at once; anything longer means that it does not answer at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// An answer repeats at most the message it complains about; ours are smaller.
const LONGEST_ANSWER: usize = 8192;

/// Why the rules could not be written, with the way out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(
        "not permitted to change this network namespace: the container needs the capability \
         NET_ADMIN and uid 0 (securityContext.capabilities.add: [\"NET_ADMIN\"], runAsUser: 0); \
         a namespace that enforces the pod security level `baseline` or `restricted` does not \
         admit it and needs the level `privileged`, or capture.mode=node in the chart's values"
    )]
    NotPermitted,
    #[error(
        "this kernel cannot redirect with nf_tables ({source}, while writing {step}): it needs \
         Linux 5.2 or newer with the modules nf_tables, nft_chain_nat and nft_redir"
    )]
    Unsupported { step: String, source: io::Error },
    #[error("the kernel refused {step}: {source}")]
    Refused { step: String, source: io::Error },
    #[error("{step} does not fit into a message to the kernel")]
    TooLong { step: String },
    #[error(
        "this network namespace has a table {TABLE} with other rules, and rules are set once: \
         delete the pod, so that its successor has a network namespace of its own"
    )]
    OtherRules,
    #[error("netlink: {0}")]
    Netlink(#[from] io::Error),
}

/// What became of rules that are set once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetOnce {
    Written(Forwarded),
    /// The same rules were there.
    Present(Forwarded),
}

/// Writes the rules, without the one for forwarded packets where the kernel lacks what it
/// needs. That one only exempts, so without it nothing gets around the proxy.
///
/// # Errors
/// When the kernel refuses; the namespace is then as it was before.
pub(crate) fn write(settings: &Settings) -> Result<Forwarded, WriteError> {
    by_kernel(settings, |family, chains| {
        commit(&Batch::replacing(family, chains))
    })
}

/// The same where there is no table yet. A table that is there is never changed.
///
/// # Errors
/// When the kernel refuses, or when the table that is there has other rules.
pub(crate) fn set_once(settings: &Settings) -> Result<SetOnce, WriteError> {
    let written = by_kernel(settings, |family, chains| {
        commit(&Batch::making(family, chains))
    });
    match written {
        Ok(forwarded) => Ok(SetOnce::Written(forwarded)),
        Err(WriteError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
            let there = Listed::read(&netlink_socket()?, family() as u8, &table())?;
            let mut either = [Forwarded::Pass, Forwarded::Redirected].into_iter();
            let same = either.find(|forwarded| {
                let planned = rules::plan(settings, *forwarded);
                there.is(&expressed(&planned))
            });
            same.map(SetOnce::Present).ok_or(WriteError::OtherRules)
        }
        Err(error) => Err(error),
    }
}

fn by_kernel(
    settings: &Settings,
    write: impl Fn(Family, &[Chain]) -> Result<(), WriteError>,
) -> Result<Forwarded, WriteError> {
    let written =
        |forwarded| write(family(), &rules::plan(settings, forwarded)).map(|()| forwarded);
    match written(Forwarded::Pass) {
        Err(WriteError::Unsupported { .. }) => written(Forwarded::Redirected),
        result => result,
    }
}

/// A kernel without IPv6 has no `inet` family either.
fn family() -> Family {
    // Of this thread: that of the process may be in another network namespace.
    if Path::new("/proc/thread-self/net/if_inet6").exists() {
        Family::Inet
    } else {
        Family::Ipv4
    }
}

/// Neither bound nor connected: the kernel is a netlink socket's default peer.
fn netlink_socket() -> io::Result<Socket> {
    let (netlink, netfilter) = (libc::AF_NETLINK, libc::NETLINK_NETFILTER);
    let socket = Socket::new(
        Domain::from(netlink),
        Type::RAW,
        Some(Protocol::from(netfilter)),
    )?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    Ok(socket)
}

fn commit(batch: &Batch) -> Result<(), WriteError> {
    let socket = netlink_socket()?;
    (&socket).write_all(&batch.encode()?)?;

    // Refusals come in the order of the messages and only the last message requests an answer, so
    // the first answer is the result of all.
    let mut answer = vec![0; LONGEST_ANSWER];
    let length = (&socket).read(&mut answer)?;
    match KernelAck::parse(answer.get(..length).unwrap_or_default()) {
        Some(KernelAck { errno: 0, .. }) => Ok(()),
        Some(KernelAck { errno, sequence }) => Err(refusal(errno, batch.step(sequence))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of unknown form").into()),
    }
}

fn refusal(errno: i32, step: String) -> WriteError {
    let source = io::Error::from_raw_os_error(errno);
    match errno {
        libc::EPERM | libc::EACCES => WriteError::NotPermitted,
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOENT => {
            WriteError::Unsupported { step, source }
        }
        _ => WriteError::Refused { step, source },
    }
}

/// Where `iptables` puts destination nat. kube-proxy and CNI plugins work in
/// other namespaces, so nothing competes.
const DESTINATION_NAT: i32 = -100;

#[derive(Clone, Copy)]
enum Family {
    Inet = 1,
    Ipv4 = 2,
}

// Message types, with the subsystem in the upper byte.
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;

// Message flags.
const CREATE: u16 = 0x400;
/// For rules: behind the existing ones, not before them.
const APPEND: u16 = 0x800;
/// For tables: only where there is none.
const EXCLUSIVE: u16 = 0x200;

/// A transaction: messages for the kernel between a begin and an end.
struct Batch {
    family: Family,
    messages: Vec<Message>,
}

impl Batch {
    fn replacing(family: Family, chains: &[Chain]) -> Self {
        Self::removing(family).with_table(CREATE, chains)
    }

    fn making(family: Family, chains: &[Chain]) -> Self {
        let empty = Self {
            family,
            messages: Vec::new(),
        };
        empty.with_table(CREATE | EXCLUSIVE, chains)
    }

    fn with_table(mut self, flags: u16, chains: &[Chain]) -> Self {
        self.add(NEW_TABLE, flags, format!("table {TABLE}"), table());
        for chain in chains {
            self.add(
                NEW_CHAIN,
                CREATE,
                format!("chain {}", chain.name),
                declare(chain),
            );
            for rule in &chain.rules {
                let step = format!("a rule of chain {} ({rule:?})", chain.name);
                self.add(NEW_RULE, CREATE | APPEND, step, express(chain.name, rule));
            }
        }
        self
    }

    fn removing(family: Family) -> Self {
        let mut batch = Self {
            family,
            messages: Vec::new(),
        };
        batch.add(NEW_TABLE, CREATE, format!("table {TABLE}"), table());
        batch.add(
            DELETE_TABLE,
            0,
            format!("the removal of table {TABLE}"),
            table(),
        );
        batch
    }

    fn add(&mut self, kind: u16, flags: u16, step: String, attributes: Attributes) {
        self.messages.push(Message {
            kind,
            flags,
            step,
            attributes,
        });
    }

    fn encode(&self) -> Result<Vec<u8>, WriteError> {
        if let Some(message) = self.messages.iter().find(|m| m.attributes.too_long) {
            let step = message.step.clone();
            return Err(WriteError::TooLong { step });
        }
        Ok(netlink::encode(self.family as u8, &self.messages))
    }

    /// Messages are numbered from 1; 0 is the begin of the transaction.
    fn step(&self, sequence: u32) -> String {
        let index = usize::try_from(sequence)
            .ok()
            .and_then(|number| number.checked_sub(1));
        let message = index.and_then(|index| self.messages.get(index));
        message.map_or_else(|| "the transaction".into(), |message| message.step.clone())
    }
}

fn table() -> Attributes {
    Attributes::default().text(1, TABLE)
}

fn declare(chain: &Chain) -> Attributes {
    let hook = match chain.hook {
        Hook::Prerouting => 0,
        Hook::Output => 3,
    };
    Attributes::default()
        .text(1, TABLE)
        .text(3, chain.name)
        .nest(
            4,
            Attributes::default()
                .number(1, hook)
                .number(2, DESTINATION_NAT.cast_unsigned()),
        )
        .text(7, "nat")
}

/// All rules, in the order in which the kernel lists them.
fn expressed(chains: &[Chain]) -> Vec<Attributes> {
    let of_chain = |chain: &Chain| -> Vec<Attributes> {
        let rules = chain.rules.iter();
        rules.map(|rule| express(chain.name, rule)).collect()
    };
    chains.iter().flat_map(of_chain).collect()
}

fn express(chain: &str, rule: &Rule) -> Attributes {
    let mut list = Attributes::default();
    for condition in &rule.when {
        list = list.append(&matching(*condition));
    }
    Attributes::default()
        .text(1, TABLE)
        .text(2, chain)
        .nest(4, list.append(&verdict(rule.then)))
}

/// The register that a value is loaded into and compared in; one is enough,
/// since every condition is loaded and compared before the next.
const REGISTER: u32 = 1;

// Facts that `meta` can load.
const INPUT_INTERFACE: u32 = 4;
const OUTPUT_INTERFACE: u32 = 5;
const SOCKET_UID: u32 = 10;
const SOCKET_GID: u32 = 11;
const NETWORK_PROTOCOL: u32 = 15;
const TRANSPORT_PROTOCOL: u32 = 16;

// Bases that `payload` counts from.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;

/// The kernel gives this index to the loopback of every network namespace.
const LOOPBACK: u32 = 1;

/// What routing calls an address of this namespace (`RTN_LOCAL`).
const LOCAL: u32 = 2;

fn matching(condition: Match) -> Attributes {
    let tcp = [6];
    match condition {
        Match::NotTcp => meta(TRANSPORT_PROTOCOL).append(&compare(NOT_EQUAL, &tcp)),
        Match::FromLoopback => {
            meta(INPUT_INTERFACE).append(&compare(EQUAL, &LOOPBACK.to_ne_bytes()))
        }
        Match::ToLoopback => {
            meta(OUTPUT_INTERFACE).append(&compare(EQUAL, &LOOPBACK.to_ne_bytes()))
        }
        Match::NotForUs => destination_type().append(&compare(NOT_EQUAL, &LOCAL.to_ne_bytes())),
        Match::Uid(uid) => meta(SOCKET_UID).append(&compare(EQUAL, &uid.to_ne_bytes())),
        Match::Gid(gid) => meta(SOCKET_GID).append(&compare(EQUAL, &gid.to_ne_bytes())),
        Match::PortBetween(first, last) => payload(TRANSPORT_HEADER, 2, 2)
            .append(&compare(AT_LEAST, &first.to_be_bytes()))
            .append(&compare(AT_MOST, &last.to_be_bytes())),
        Match::Destination(IpNet::V4(net)) => destination(
            libc::NFPROTO_IPV4,
            16,
            &net.netmask().octets(),
            &net.network().octets(),
        ),
        Match::Destination(IpNet::V6(net)) => destination(
            libc::NFPROTO_IPV6,
            24,
            &net.netmask().octets(),
            &net.network().octets(),
        ),
    }
}

/// The address at `offset` of the network header of this protocol is in a net.
fn destination(protocol: libc::c_int, offset: u32, mask: &[u8], network: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let masked = Attributes::default()
        .number(1, REGISTER)
        .number(2, REGISTER)
        .number(3, length)
        .nest(4, value(mask))
        .nest(5, value(&vec![0; mask.len()]));
    meta(NETWORK_PROTOCOL)
        .append(&compare(EQUAL, &protocol.to_le_bytes()[..1]))
        .append(&payload(NETWORK_HEADER, offset, length))
        .append(&expression("bitwise", masked))
        .append(&compare(EQUAL, network))
}

fn verdict(verdict: PacketVerdict) -> Attributes {
    const RETURN: i32 = -5;
    /// The verdict has a register of its own.
    const VERDICT_REGISTER: u32 = 0;
    const PORT_GIVEN: u32 = 2;
    match verdict {
        PacketVerdict::Return => {
            let code = Attributes::default().number(1, RETURN.cast_unsigned());
            let data = Attributes::default().nest(2, code);
            expression(
                "immediate",
                Attributes::default()
                    .number(1, VERDICT_REGISTER)
                    .nest(2, data),
            )
        }
        PacketVerdict::Redirect(port) => {
            let load = Attributes::default()
                .number(1, REGISTER)
                .nest(2, value(&port.to_be_bytes()));
            let to = Attributes::default()
                .number(1, REGISTER)
                .number(2, REGISTER)
                .number(3, PORT_GIVEN);
            expression("immediate", load).append(&expression("redir", to))
        }
    }
}

fn meta(fact: u32) -> Attributes {
    expression(
        "meta",
        Attributes::default().number(1, REGISTER).number(2, fact),
    )
}

/// The kernel's type of the destination, of whichever interface it is.
fn destination_type() -> Attributes {
    const TYPE_OF_ADDRESS: u32 = 3;
    const BY_DESTINATION: u32 = 1 << 1;
    let load = Attributes::default()
        .number(1, REGISTER)
        .number(2, TYPE_OF_ADDRESS)
        .number(3, BY_DESTINATION);
    expression("fib", load)
}

fn payload(base: u32, offset: u32, length: u32) -> Attributes {
    let load = Attributes::default()
        .number(1, REGISTER)
        .number(2, base)
        .number(3, offset);
    expression("payload", load.number(4, length))
}

fn compare(how: u32, with: &[u8]) -> Attributes {
    expression(
        "cmp",
        Attributes::default()
            .number(1, REGISTER)
            .number(2, how)
            .nest(3, value(with)),
    )
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().put(1, bytes)
}

/// One element of a rule's list of expressions.
#[inline(never)]
fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().nest(1, Attributes::default().text(1, name).nest(2, data))
}

#[cfg(test)]
mod tests;
