//! Why a request or connection could not be served, in one place: status, header, metric
//! label and the right to try elsewhere are all read from here. `http::refusal` makes the
//! answer.
//!
//! Imports nothing of this crate.

use policy::reason::Reason;

/// What went wrong, and whether the application can have seen the request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Failure {
    pub reason: Reason,
    /// For logs and for the caller; holds no header values.
    pub detail: String,
    /// True only when it is proven that no application saw any of it.
    pub never_reached: bool,
    /// True when a connection was at its end, not its endpoint: another
    /// connection to the same endpoint may do.
    pub stale: bool,
    /// How the other end reset the stream of the request, where it did.
    pub reset: Option<StreamReset>,
}

/// The code of an HTTP/2 RST_STREAM frame that the other end sent. In the extensions of
/// an answer it takes the answer's place where the caller speaks HTTP/2: what a code
/// means is between the two ends. gRPC clients read CANCEL as their own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamReset(pub h2::Reason);

impl StreamReset {
    /// `None` for every other end of a stream.
    #[must_use]
    pub fn of(error: &h2::Error) -> Option<Self> {
        let theirs = error.is_reset() && error.is_remote();
        error.reason().filter(|_| theirs).map(Self)
    }

    /// The same for what broke a body off.
    #[must_use]
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |error| error.source())
            .find_map(|error| error.downcast_ref().and_then(Self::of))
    }
}

impl Failure {
    pub fn unsent(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            never_reached: true,
            stale: false,
            reset: None,
        }
    }

    pub fn lost(detail: impl Into<String>) -> Self {
        Self {
            reason: Reason::ConnectionLost,
            detail: detail.into(),
            never_reached: false,
            stale: false,
            reset: None,
        }
    }

    /// A verdict of whoever was asked: no other endpoint would differ.
    pub fn verdict(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            never_reached: false,
            stale: false,
            reset: None,
        }
    }

    /// With what a refused caller needs to know: who it was taken for, and where to look.
    /// It says nothing but the caller's own name.
    #[must_use]
    pub fn told_to(mut self, caller: &str) -> Self {
        match self.reason {
            Reason::NotAllowed => {
                self.detail = format!(
                    "{}; the caller is {caller}; `kubectl get traffictarget -A` lists what is \
                     allowed; `kubectl port-forward` to port 15190 of the called pod and /config on \
                     localhost, which alone is answered, what is in force there",
                    self.detail
                );
            }
            Reason::NoIdentity => {
                self.detail = format!(
                    "{}; the caller is outside the mesh: give its pod a proxy \
                     (label weft.dev/inject=enabled, then make the pod anew); if plaintext is \
                     to be accepted, annotate the called namespace weft.dev/mtls=permissive, and \
                     where calls are denied allow group system:unauthenticated in a TrafficTarget",
                    self.detail
                );
            }
            _ => {}
        }
        self
    }

    /// A connection that ended before it took the call.
    pub fn stale(detail: impl Into<String>) -> Self {
        Self {
            stale: true,
            ..Self::unsent(Reason::ConnectFailed, detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_caller_is_told_who_it_was_taken_for_and_where_to_look() {
        let caller = "spiffe://cluster.local/ns/shop/sa/web";
        let refused = Failure::verdict(Reason::NotAllowed, "no TrafficTarget allows this call");
        let detail = refused.told_to(caller).detail;
        assert!(
            detail.starts_with("no TrafficTarget allows this call; the caller is spiffe://")
                && detail.contains(caller)
                && detail.contains("kubectl get traffictarget")
                && detail.contains("kubectl port-forward"),
            "{detail}"
        );
        let outside = Failure::verdict(Reason::NoIdentity, "plaintext").told_to("outside");
        assert!(
            outside.detail.contains("weft.dev/inject=enabled")
                && outside.detail.contains("weft.dev/mtls=permissive"),
            "{}",
            outside.detail
        );
        // Other failures say what they said.
        let other = Failure::verdict(Reason::BadRequest, "x").told_to(caller);
        assert_eq!(other.detail, "x");
    }
}
