//! What nobody polite would send: messages that can be read two ways, floods,
//! forged identities, servers that lie. Every attack is followed by a request
//! that must succeed, and what the application got is read by a strict parser.

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
