//! The rules of the table as the kernel lists them, compared with those that would be written.
//!
//! The kernel lists what it was given in an order of its own and adds more: handles, positions,
//! defaults. So a rule is the same if everything that would be sent for it is in the list, with
//! the same expressions in the same order. A process that makes a rule that differs only by what is
//! not compared has `NET_ADMIN` in the namespace already.

use std::io::{self, Read, Write};

use socket2::Socket;

use super::netlink::{self, Attributes, HEADER, HEADERS, NESTED, NFTABLES};

const LIST_RULES: u16 = NFTABLES << 8 | 7;

/// The kernel packs rules into messages of at most this length.
const LONGEST: usize = 32 * 1024;
/// Bytes of all rules together. The longest lists take a third.
const MOST: usize = 1 << 20;

// Attributes of a rule.
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;

/// Rules in their order, each as its attributes.
#[derive(Debug)]
pub(super) struct Listed(Vec<Vec<u8>>);

impl Listed {
    /// The rules of a table, in the network namespace that the socket was made in.
    pub(super) fn read(socket: &Socket, family: u8, table: &Attributes) -> io::Result<Self> {
        let (mut to_kernel, mut from_kernel) = (socket, socket);
        to_kernel.write_all(&netlink::list(family, LIST_RULES, table))?;
        let (mut rules, mut bytes) = (Vec::new(), 0);
        let mut part = vec![0; LONGEST];
        loop {
            let length = from_kernel.read(&mut part)?;
            bytes += length;
            if bytes > MOST {
                return Err(broken());
            }
            if is_last(part.get(..length).unwrap_or_default(), &mut rules)? {
                return Ok(Self(rules));
            }
        }
    }

    /// Whether these are exactly the planned rules.
    pub(super) fn is(&self, planned: &[Attributes]) -> bool {
        planned.len() == self.0.len()
            && planned
                .iter()
                .zip(&self.0)
                .all(|(planned, listed)| is_rule(&planned.bytes, listed))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a list of unknown form")
}

/// Appends the rules of one answer; true when it ends the list.
fn is_last(answer: &[u8], rules: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    let mut rest = answer;
    while let Some(head) = rest.first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *head;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let message = rest.get(..length).ok_or_else(broken)?;
        match i32::from(u16::from_ne_bytes([k0, k1])) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = message.get(HEADER..).and_then(|code| code.first_chunk());
                let code = i32::from_ne_bytes(*code.ok_or_else(broken)?);
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            _ => rules.push(message.get(HEADERS..).ok_or_else(broken)?.to_vec()),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if rest.is_empty() {
        Ok(false)
    } else {
        Err(broken())
    }
}

/// The table is the same by the request.
fn is_rule(planned: &[u8], listed: &[u8]) -> bool {
    let [ours, theirs] = [planned, listed].map(|of| value(of, EXPRESSIONS).unwrap_or_default());
    value(planned, CHAIN) == value(listed, CHAIN)
        && attributes(ours).count() == attributes(theirs).count()
        && attributes(ours)
            .zip(attributes(theirs))
            .all(|((_, ours), (_, theirs))| is_within(ours, theirs))
}

fn value(of: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = attributes(of);
    all.find_map(|(its, value)| (its & !NESTED == kind).then_some(value))
}

/// Whether each of these attributes is in the others, in whatever order.
fn is_within(ours: &[u8], theirs: &[u8]) -> bool {
    attributes(ours).all(|(kind, value)| {
        attributes(theirs).any(|(their_kind, theirs)| {
            kind & !NESTED == their_kind & !NESTED
                && if kind & NESTED == 0 {
                    value == theirs
                } else {
                    is_within(value, theirs)
                }
        })
    })
}

/// Type and value of each attribute, up to the first that is cut off.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::nftables::expressed;
    use crate::capture::rules::{Forwarded, plan};
    use crate::capture::settings::Settings;

    /// As a kernel lists them: attributes turned round, handles added, nothing marked as nested.
    fn listed(planned: &[Attributes]) -> Listed {
        let rules = planned.iter();
        Listed(rules.map(|rule| turned(&rule.bytes, true)).collect())
    }

    fn turned(bytes: &[u8], of_rule: bool) -> Vec<u8> {
        let mut all: Vec<_> = attributes(bytes).collect();
        let is_list = !of_rule && all.len() > 1 && all.iter().all(|(kind, _)| kind & !NESTED == 1);
        if !is_list {
            all.reverse();
        }
        let mut turned = Attributes::default();
        for (kind, value) in all {
            let nested = kind & NESTED != 0;
            let inside = nested.then(|| self::turned(value, false));
            turned = turned.put(kind & !NESTED, inside.as_deref().unwrap_or(value));
        }
        if of_rule {
            turned = turned.put(3, &[0, 0, 0, 0, 0, 0, 0, 7]);
        }
        turned.bytes
    }

    fn rules(line: &str, forwarded: Forwarded) -> Vec<Attributes> {
        let arguments = line.split_whitespace().map(str::to_owned);
        expressed(&plan(
            &Settings::from_arguments(arguments).unwrap(),
            forwarded,
        ))
    }

    #[test]
    fn listed_rules_are_those_that_were_written() {
        let line = "--skip-inbound-ports=25 --skip-outbound-cidrs=10.0.0.0/9,fd00::/8";
        let own = rules(line, Forwarded::Pass);
        assert!(listed(&own).is(&own));
        for other in [
            "--skip-inbound-ports=25 --skip-outbound-cidrs=10.0.0.0/8,fd00::/8",
            "--skip-inbound-ports=25 --skip-outbound-cidrs=fd00::/8,10.0.0.0/9",
            "--skip-inbound-ports=26 --skip-outbound-cidrs=10.0.0.0/9,fd00::/8",
            "--skip-outbound-ports=25 --skip-outbound-cidrs=10.0.0.0/9,fd00::/8",
            "--skip-inbound-ports=25",
            "",
        ] {
            let others = rules(other, Forwarded::Pass);
            assert!(!listed(&own).is(&others), "{other}");
            assert!(!listed(&others).is(&own), "{other}");
        }
        assert!(!listed(&own).is(&rules(line, Forwarded::Redirected)));
    }

    #[test]
    fn answers_cut_off_anywhere_are_refused_or_unfinished() {
        let all = rules("", Forwarded::Pass);
        let mut answer = netlink::list(1, LIST_RULES, &all[0]);
        let whole = answer.len();
        answer.extend([20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut found = Vec::new();
        assert!(is_last(&answer, &mut found).unwrap());
        assert!(is_rule(&all[0].bytes, &found[0]));
        for length in 0..answer.len() {
            let ended = is_last(&answer[..length], &mut Vec::new());
            let is_unfinished = matches!(ended, Ok(false));
            assert_eq!(is_unfinished, [0, whole].contains(&length), "{length}");
        }
        let refused = [
            36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255,
        ];
        let refused = [&refused[..], &[0; 16]].concat();
        let error = is_last(&refused, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(is_last(&[0; 16], &mut Vec::new()).is_err(), "of no length");
    }
}
