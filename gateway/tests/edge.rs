//! A Gateway in process: its listeners on a loopback address, real certificates and sockets, clients
//! that know nothing of the mesh before it, and a pod of the mesh with an application behind it.
//! Only the controller is missing, whose resources the tests send.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "../../proxy/tests/path/answers.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod answers;
#[path = "../../proxy/tests/support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;

mod edge {
    mod bytes;
    mod certificates;
    mod clients;
    mod handed_over;
    mod harness;
    mod hosts;
    mod life;
    mod requests;
    mod revoked;
    mod versions;
}
