//! What secured the calls of an edge.

use crds::observe::{Edge, Protocol};

/// Of what is known of an edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Secured {
    /// Mutual TLS of the mesh, all of them.
    Mtls,
    /// TLS of the applications' own, at least those that no mutual TLS carried. The mesh knows
    /// no identity of it.
    OwnTls,
    /// Mutual TLS, but only this share.
    Partly(f64),
    /// Nothing.
    Plaintext,
}

impl Secured {
    /// `None` if it is not known, and if there was nothing to secure.
    pub(super) fn of(edge: &Edge) -> Option<Self> {
        if never_left(edge) {
            return None;
        }
        Some(match edge.mtls? {
            share if share >= 1.0 => Self::Mtls,
            _ if edge.protocol == Protocol::Tls => Self::OwnTls,
            share if share <= 0.0 => Self::Plaintext,
            share => Self::Partly(share),
        })
    }

    /// Whether calls went in plaintext.
    pub(super) const fn has_plaintext(self) -> bool {
        matches!(self, Self::Partly(_) | Self::Plaintext)
    }
}

/// Whether the callers' own proxies refused all of its calls, so that nothing went anywhere. Calls
/// that were served, or are under way, left the caller whatever is counted of attempts.
fn never_left(edge: &Edge) -> bool {
    let reported_by_callers = !edge.caller_silent && edge.server.is_none();
    let nothing_sent = edge.attempts == 0 && edge.success == 0 && edge.sent == 0;
    let nothing_open = edge.open == 0 && edge.opened == 0;
    edge.requests > 0 && reported_by_callers && nothing_sent && nothing_open
}
