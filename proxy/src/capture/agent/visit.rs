//! One visit of the agent to a network namespace: enters it and, if a pod listens there, writes the
//! redirection rules that the pod requests.
//!
//! A thread cannot be trusted with anything else once it has entered: whatever it opens belongs to
//! the pod's network. So it is made for one namespace and ends there, whatever happens. Nothing
//! here starts a thread or writes the log: a thread that is made here would stay in the namespace.
//!
//! The process that listens may be hostile. It gets one line's worth of attention, for a bounded
//! time, and can change its own namespace alone: where there are no rules yet, and where no address
//! of the node is.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use crate::capture::exchange::{CaptureAnswer, CaptureRequest, LONGEST_LINE, address, line};
use crate::capture::nftables::{self, SetOnce, WriteError};
use crate::capture::rules::Forwarded;

/// A pod writes its line as soon as the agent connects.
const LINE_WITHIN: Duration = Duration::from_secs(2);
/// The same while others wait. A process that has processor time needs a hundredth.
const LINE_WITHIN_CROWDED: Duration = Duration::from_millis(250);
/// Interval at which a slow process is given up.
const STEP: Duration = Duration::from_millis(50);
/// Characters of a reason, of which a hostile process chooses some: for the log, and so that the
/// answer is no longer than a line may be.
const LONGEST_REASON: usize = 512;

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// No process listens.
    NoListener,
    Captured(Forwarded),
    /// The same rules were there already.
    Present(Forwarded),
    /// The process cannot have what it requests.
    Refused {
        why: Refused,
        reason: String,
    },
    /// Nothing came of it, and another try may have another result.
    Failed {
        why: Failed,
        reason: String,
    },
}

/// In closed words, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The namespace is the node's.
    HostNetwork,
    OtherRules,
    BadRequest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The namespace cannot be entered, or nothing can be opened in it, also where a security
    /// module of the node forbids that.
    Enter,
    /// The process takes no connection, or sends no line.
    Slow,
    Kernel,
}

/// A try that ends early, with its result.
type Ends<T> = Result<T, Visit>;

fn failed(why: Failed) -> impl FnOnce(io::Error) -> Visit {
    move |error| {
        let way_out = match error.kind() {
            ErrorKind::PermissionDenied => {
                "; where SELinux forbids it, set capture.node.seLinuxOptions in the chart's values"
            }
            _ => "",
        };
        let reason = format!("{error}{way_out}");
        Visit::Failed { why, reason }
    }
}

fn refused(why: Refused, reason: &str) -> Visit {
    let reason = reason.chars().take(LONGEST_REASON).collect();
    Visit::Refused { why, reason }
}

/// Enters and tries. The thread stays in the namespace and must end with this.
/// `is_crowded`: other namespaces wait.
pub(super) fn visit(namespace: &File, hosts: &[IpAddr], is_crowded: &AtomicBool) -> Visit {
    let (Ok(visit) | Err(visit)) = try_visit(namespace, hosts, is_crowded);
    visit
}

fn try_visit(namespace: &File, hosts: &[IpAddr], is_crowded: &AtomicBool) -> Ends<Visit> {
    let network = Some(LinkNameSpaceType::Network);
    let entered = move_into_link_name_space(namespace.as_fd(), network).map_err(io::Error::from);
    entered.map_err(failed(Failed::Enter))?;
    let stream = connect()?;
    let visit = match request(&stream, is_crowded) {
        Ok(request) => capture(&request, hosts),
        Err(visit) => visit,
    };
    answer(&stream, &visit);
    Ok(visit)
}

/// Connects to the process that listens, without waiting: a queue that is full stays so as long
/// as a hostile process likes.
fn connect() -> Ends<UnixStream> {
    let enter = failed(Failed::Enter);
    let socket = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let (socket, address) = match (socket(), address()) {
        (Ok(socket), Ok(address)) => (socket, address),
        (Err(error), _) | (_, Err(error)) => return Err(enter(error)),
    };
    match socket.connect(&address) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(Visit::NoListener);
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(enter(error)),
        Err(error) => return Err(failed(Failed::Slow)(error)),
    }
    let timeouts = socket
        .set_nonblocking(false)
        .and_then(|()| socket.set_read_timeout(Some(STEP)))
        .and_then(|()| socket.set_write_timeout(Some(STEP)));
    timeouts.map_err(enter)?;
    Ok(UnixStream::from(socket))
}

fn request(mut stream: &UnixStream, is_crowded: &AtomicBool) -> Ends<CaptureRequest> {
    let began = Instant::now();
    let slow = |reason: &str| Visit::Failed {
        why: Failed::Slow,
        reason: reason.to_owned(),
    };
    let mut line: Vec<u8> = Vec::new();
    let mut part = [0; 4096];
    loop {
        let before = line.len();
        match stream.read(&mut part) {
            Ok(0) => return Err(slow("it closed the connection without a line")),
            Ok(length) => line.extend(part.get(..length).unwrap_or_default()),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(failed(Failed::Slow)(error)),
        }
        // Only in what came now: a process may send its line byte by byte.
        let mut new = line.iter().skip(before);
        let end = new.position(|byte| *byte == b'\n').map(|at| before + at);
        if end.unwrap_or(line.len()) >= LONGEST_LINE {
            let reason = format!("the request is longer than {LONGEST_LINE} bytes");
            return Err(refused(Refused::BadRequest, &reason));
        }
        if let Some(line) = end.and_then(|end| line.get(..end)) {
            return serde_json::from_slice(line)
                .map_err(|error| refused(Refused::BadRequest, &format!("the request: {error}")));
        }
        let within = if is_crowded.load(Ordering::Relaxed) {
            LINE_WITHIN_CROWDED
        } else {
            LINE_WITHIN
        };
        if began.elapsed() >= within {
            return Err(slow("it listens and sends no line"));
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn capture(request: &CaptureRequest, hosts: &[IpAddr]) -> Visit {
    for host in hosts {
        match is_held(*host) {
            Ok(false) => {}
            Ok(true) => {
                let reason = format!(
                    "its network namespace holds {host}, an address of the node, and a pod of the \
                     node's network cannot be in the mesh; or its sysctl ip_nonlocal_bind is 1, \
                     which hides whose it is: take that away"
                );
                return refused(Refused::HostNetwork, &reason);
            }
            // It may be the node's.
            Err(error) => return failed(Failed::Enter)(error),
        }
    }
    let settings = match request.settings() {
        Ok(settings) => settings,
        Err(bad) => return refused(Refused::BadRequest, &bad.to_string()),
    };
    match nftables::set_once(&settings) {
        Ok(SetOnce::Written(forwarded)) => Visit::Captured(forwarded),
        Ok(SetOnce::Present(forwarded)) => Visit::Present(forwarded),
        Err(error @ WriteError::OtherRules) => refused(Refused::OtherRules, &error.to_string()),
        Err(error) => Visit::Failed {
            why: Failed::Kernel,
            reason: error.to_string(),
        },
    }
}

/// Whether this network namespace has the address. A socket can be bound to no other.
fn is_held(address: IpAddr) -> io::Result<bool> {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            // The second: a namespace or kernel without this family.
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => Ok(false),
            _ => Err(error),
        },
    }
}

/// A pod that was slow, or that could not be looked at, gets no answer and is tried again; one
/// that does not read its answer gets none.
fn answer(mut stream: &UnixStream, visit: &Visit) {
    let answer = match visit {
        Visit::Captured(forwarded) | Visit::Present(forwarded) => CaptureAnswer::Captured {
            forwarded_too: *forwarded == Forwarded::Redirected,
        },
        Visit::Refused { reason, .. }
        | Visit::Failed {
            why: Failed::Kernel,
            reason,
        } => CaptureAnswer::Refused {
            reason: reason.clone(),
        },
        Visit::NoListener | Visit::Failed { .. } => return,
    };
    if let Ok(line) = line(&answer) {
        let _ = stream.write_all(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(lines: &str) -> Ends<CaptureRequest> {
        let (agent, mut pod) = UnixStream::pair().unwrap();
        pod.write_all(lines.as_bytes()).unwrap();
        request(&agent, &AtomicBool::new(false))
    }

    #[test]
    fn reason_that_a_process_chooses_is_short() {
        let name = "x".repeat(8000);
        for line in [
            format!("{{\"{name}\": 1}}\n"),
            format!("{{\"skipInboundPorts\": 1, \"{name}\": 1}}\n"),
        ] {
            let Err(Visit::Refused { why, reason }) = requested(&line) else {
                panic!("{line} was taken");
            };
            assert_eq!(why, Refused::BadRequest);
            assert!(reason.chars().count() <= LONGEST_REASON, "{reason}");
        }
        let request = CaptureRequest::default();
        let two = [line(&request).unwrap(), b"{".to_vec()].concat();
        let two = String::from_utf8(two).unwrap();
        assert_eq!(requested(&two), Ok(request), "one line is read");
    }
}
