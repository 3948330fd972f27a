//! The netlink messages to the kernel, and its answers.

use super::netlink::ACK;
use super::*;
use crate::capture::rules::{self, Forwarded};
use crate::capture::settings::Settings;

#[test]
fn the_longest_lists_fit_into_one_message() {
    // Linux' default for net.core.wmem_default, less the kernel's own share.
    const SEND_BUFFER: usize = 212_992 - 32;
    let port = |number: usize| format!("{0}-{0}", 2 * number + 1);
    let ports: Vec<_> = (0..policy::protocol::MAX_PORT_RANGES).map(port).collect();
    let cidrs: Vec<_> = (0..crate::capture::settings::MAX_NETS)
        .map(|n| format!("2001:db8:{n:x}::/48"))
        .collect();
    let settings = Settings::from_arguments([
        format!("--skip-inbound-ports={}", ports.join(",")),
        format!("--skip-outbound-ports={}", ports.join(",")),
        format!("--skip-outbound-cidrs={}", cidrs.join(",")),
    ])
    .unwrap();
    let chains = rules::plan(&settings, Forwarded::Pass);
    let length = Batch::replacing(Family::Inet, &chains)
        .encode()
        .unwrap()
        .len();
    assert!(length < SEND_BUFFER, "{length} bytes");
}

#[test]
fn what_its_length_cannot_say_is_not_sent() {
    let mut batch = Batch::removing(Family::Inet);
    let long = Attributes::default().nest(4, value(&[0; 1 << 16]));
    let list = Attributes::default().append(&expression("compare", long));
    batch.add(NEW_RULE, CREATE, "a long rule".into(), list);
    let error = batch.encode().unwrap_err().to_string();
    assert!(error.starts_with("a long rule does not fit"), "{error}");
}

#[test]
fn only_the_last_message_asks_for_an_answer() {
    let batch = Batch::removing(Family::Inet).encode().unwrap();
    let mut rest = batch.as_slice();
    let mut asks = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        asks.push(u16::from_ne_bytes(rest[6..8].try_into().unwrap()) & ACK != 0);
        rest = &rest[length..];
    }
    assert_eq!(
        asks,
        [false, false, true, false],
        "begin, create, delete, end"
    );
}

#[test]
fn nftables_refusal_names_failed_step_and_required_privilege() {
    let batch = Batch::removing(Family::Inet);
    assert!(
        refusal(libc::EEXIST, batch.step(2))
            .to_string()
            .contains("removal of table weft")
    );
    assert!(
        refusal(libc::EPERM, batch.step(0))
            .to_string()
            .contains("NET_ADMIN")
    );
    assert!(
        refusal(libc::EOPNOTSUPP, batch.step(1))
            .to_string()
            .contains("5.2")
    );
}
