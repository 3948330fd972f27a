//! Checks that redirection works: connects to an address that has no server and expects to arrive
//! at the proxy's own port.
//!
//! The addresses are those that the standards reserve for documentation, so a connection that
//! escapes reaches no host. Only outbound can be proven from inside; both directions are written
//! in one transaction.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use policy::well_known::OUTBOUND_PORT;

use crate::capture::settings::{Settings, UID};
use crate::net::original_dst::original_dst;

/// Time limit for a connection within the machine: it takes microseconds, more without free CPU.
const WITHIN: Duration = Duration::from_secs(5);

/// Time limit for a connection that shows whether rules are there already. The kernel completes a
/// redirected one before `connect` returns; without rules this is what the look costs.
const LOOK_WITHIN: Duration = Duration::from_millis(20);

/// Interval of attempts to accept the redirected connection.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What was found, mostly for one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    /// A connection to this address arrived at the proxy's port.
    Redirected(SocketAddr),
    /// The namespace has no route in this address family.
    NoRoute { family: &'static str },
    /// The skip lists leave nothing to redirect.
    Skipped { family: &'static str },
    /// The kernel cannot distinguish packets that the pod forwards from those for the pod.
    ForwardedToo,
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirected(target) => write!(f, "proven with a connection to {target}"),
            Self::NoRoute { family } => {
                write!(f, "{family}: not proven, there is no route in this family")
            }
            Self::Skipped { family } => {
                write!(f, "{family}: not proven, the skip lists cover everything")
            }
            Self::ForwardedToo => f.write_str(
                "packets that this pod forwards are redirected too: the kernel lacks the module \
                 nft_fib_inet",
            ),
        }
    }
}

/// Why redirection is not proven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(
        "a connection to {target} did not arrive at {listener}: {found}. Either no rules are \
         there (run `weft-proxy capture` in this pod, or the CNI plugin that replaces it), or \
         this process runs as the proxy's own uid or gid {UID}, which is exempt"
    )]
    NotRedirected {
        target: SocketAddr,
        listener: SocketAddr,
        found: String,
    },
    #[error(
        "a connection to {service}, the address of a Service, left this pod's sockets as one to \
         {arrived}: something on the node (Cilium's or Calico's eBPF load balancing) chooses \
         endpoints before the mesh can, so splits and balancing would have no effect. Disable its \
         translation in pods' sockets: Cilium socketLB.hostNamespaceOnly=true, Calico \
         bpfConnectTimeLoadBalancing=Disabled"
    )]
    ServiceTranslated {
        service: SocketAddr,
        arrived: SocketAddr,
    },
    #[error("cannot listen on {listener}, so nothing can be proven: {source}")]
    Listen {
        listener: SocketAddr,
        source: io::Error,
    },
    #[error(
        "neither IPv4 nor IPv6 has a default route, so nothing can be proven; the pod's network is not \
         set up, or it needs `capture` without --check"
    )]
    NoRoute,
}

/// Checks every address family that the namespace can use, and that the address of `service` is not
/// translated.
///
/// # Errors
/// When a family that has a route is not redirected, when none has a route, or when another
/// program translates the addresses of Services.
pub(crate) fn check(
    settings: &Settings,
    service: Option<SocketAddr>,
) -> Result<Vec<CheckOutcome>, CheckError> {
    let mut outcomes = families()
        .into_iter()
        .map(|family| family.check(settings))
        .collect::<Result<Vec<_>, _>>()?;
    if outcomes
        .iter()
        .all(|outcome| matches!(outcome, CheckOutcome::NoRoute { .. }))
    {
        return Err(CheckError::NoRoute);
    }
    let service = service.filter(|service| {
        !settings.skips_port(service.port())
            && !settings.skips_address(service.ip())
            && has_route(*service)
    });
    if let Some(service) = service {
        let listener = match service {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, OUTBOUND_PORT)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, OUTBOUND_PORT)),
        };
        must_not_be_translated(service, arrives(service, listener, WITHIN)?)?;
        outcomes.push(CheckOutcome::Redirected(service));
    }
    Ok(outcomes)
}

/// Whether every address family that the namespace can use is redirected already, and at least
/// one is: an earlier run of this container had the rules written. A look that is too short on a
/// busy machine finds none.
pub(crate) fn is_redirected(settings: &Settings) -> bool {
    let targets = families()
        .into_iter()
        .filter_map(|family| Some((family.target(settings)?, family.listener)))
        .filter(|(target, _)| has_route(*target));
    let mut redirected = false;
    for (target, listener) in targets {
        match arrives(target, listener, LOOK_WITHIN) {
            Ok(arrived) if arrived == target => redirected = true,
            _ => return false,
        }
    }
    redirected
}

/// Addresses for documentation, which no host answers.
struct Family {
    name: &'static str,
    listener: SocketAddr,
    candidates: [IpAddr; 3],
}

fn families() -> [Family; 2] {
    [
        Family {
            name: "IPv4",
            listener: SocketAddr::from((Ipv4Addr::LOCALHOST, OUTBOUND_PORT)),
            candidates: [
                Ipv4Addr::new(192, 0, 2, 1).into(),
                Ipv4Addr::new(198, 51, 100, 1).into(),
                Ipv4Addr::new(203, 0, 113, 1).into(),
            ],
        },
        Family {
            name: "IPv6",
            listener: SocketAddr::from((Ipv6Addr::LOCALHOST, OUTBOUND_PORT)),
            candidates: [
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
                Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1).into(),
            ],
        },
    ]
}

impl Family {
    fn check(self, settings: &Settings) -> Result<CheckOutcome, CheckError> {
        let (family, listener) = (self.name, self.listener);
        let Some(target) = self.target(settings) else {
            return Ok(CheckOutcome::Skipped { family });
        };
        if !has_route(target) {
            return Ok(CheckOutcome::NoRoute { family });
        }
        must_arrive_unchanged(target, listener, arrives(target, listener, WITHIN)?)?;
        Ok(CheckOutcome::Redirected(target))
    }

    /// What no skip list covers.
    fn target(&self, settings: &Settings) -> Option<SocketAddr> {
        let port = (9..=u16::MAX).find(|port| !settings.skips_port(*port))?;
        let mut candidates = self.candidates.into_iter();
        let ip = candidates.find(|ip| !settings.skips_address(*ip))?;
        Some(SocketAddr::new(ip, port))
    }
}

fn must_arrive_unchanged(
    target: SocketAddr,
    listener: SocketAddr,
    arrived: SocketAddr,
) -> Result<(), CheckError> {
    if arrived == target {
        return Ok(());
    }
    Err(CheckError::NotRedirected {
        target,
        listener,
        found: format!("its original destination is {arrived}"),
    })
}

fn must_not_be_translated(service: SocketAddr, arrived: SocketAddr) -> Result<(), CheckError> {
    if arrived == service {
        return Ok(());
    }
    Err(CheckError::ServiceTranslated { service, arrived })
}

/// Queries the routing table without sending anything.
fn has_route(target: SocketAddr) -> bool {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(target))
        .is_ok()
}

/// Connects to `target`, accepts the connection at the proxy's port `at`, and returns its original
/// destination.
fn arrives(target: SocketAddr, at: SocketAddr, within: Duration) -> Result<SocketAddr, CheckError> {
    let deadline = Instant::now() + within;
    let listener = TcpListener::bind(at)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| CheckError::Listen {
            listener: at,
            source,
        })?;
    let not_redirected = |found: String| CheckError::NotRedirected {
        target,
        listener: at,
        found,
    };

    // The kernel completes the handshake before `accept`.
    let client = TcpStream::connect_timeout(&target, within)
        .map_err(|error| not_redirected(error.to_string()))?;
    let from = client
        .local_addr()
        .map_err(|error| not_redirected(error.to_string()))?;
    loop {
        match listener.accept() {
            // Others may be early; only our own connection proves anything.
            Ok((_, peer)) if peer != from => {}
            Ok((stream, _)) => {
                return original_dst(&stream).map_err(|error| {
                    not_redirected(format!("the original destination is lost: {error}"))
                });
            }
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                std::thread::sleep(LOOK_EVERY);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(not_redirected("another server answered it".into()));
            }
            Err(error) => return Err(not_redirected(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_address_translated_before_redirection_is_reported_with_advice() {
        let service = SocketAddr::from(([10, 96, 0, 1], 443));
        let endpoint = SocketAddr::from(([192, 168, 7, 7], 6443));
        assert!(must_not_be_translated(service, service).is_ok());
        let message = must_not_be_translated(service, endpoint)
            .unwrap_err()
            .to_string();
        for word in [
            "10.96.0.1:443",
            "192.168.7.7:6443",
            "socketLB.hostNamespaceOnly=true",
            "bpfConnectTimeLoadBalancing=Disabled",
        ] {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
