//! Attacks on the data path: ambiguous messages, floods, forged identities, lying servers. After
//! every attack an ordinary request must succeed, and a strict parser reads what the application
//! received.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;

mod hostile {
    mod absolute;
    mod behind_answers;
    mod breaks;
    mod bypass;
    mod downgrade;
    mod exchange;
    mod floods;
    mod framing;
    mod healthy;
    mod honest;
    mod identity;
    mod malformed;
    mod permits;
    mod raw_http2;
    mod servers;
    mod shared_window;
    mod slashes;
    mod stalls;
    mod starved;
    mod streaming;
    mod targets;
    mod two_pods;
    mod undelivered;
}
