//! `Failure`: why a request or connection could not be served. Its status, header, metric label,
//! and whether it may be tried elsewhere are all read from here. `refusal` makes the response.
//!
//! The six variants are how far the request got. The next step follows from the variant alone, so
//! no code can claim both that a request may be sent again and that an application may have seen
//! it.
//!
//! Imports nothing of this crate.

use std::borrow::Cow;

use policy::origin::Origin;
use policy::reason::Reason;

/// For logs and for the caller; holds no header values.
pub type Detail = Cow<'static, str>;

/// New connections to the same endpoint that one request may need, because the one in use ended
/// just then. The calling proxy counts them with the endpoints that it tries.
pub const RENEWALS: u8 = 2;

/// What went wrong, and whether the application can have seen the request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {}", self.reason().as_str(), self.detail())]
pub enum Failure {
    /// It is proven that no application saw any of it.
    NotSent {
        reason: Reason,
        detail: Detail,
        /// It happened to another request, whose attempt to connect this one waited for.
        shared: bool,
        found: Found,
    },
    /// A connection was at its end, not its endpoint, before it took the request.
    ConnectionClosed { detail: Detail },
    /// It was for a pod that is gone, or that cannot be connected to: no application saw it, and
    /// it may go to no other one. The caller's connection was opened to that pod and ends with
    /// it, without an answer.
    TargetGone { reason: Reason, detail: Detail },
    /// An application may have seen it.
    Lost {
        detail: Detail,
        /// How the other end reset the stream of the request, where it did.
        reset: Option<StreamReset>,
    },
    /// It had no answer in its time, and an application may have seen it.
    TimedOut { detail: Detail },
    /// The peer refused, because of the object `by` if one decided that: no other endpoint would
    /// differ.
    Refused {
        reason: Reason,
        by: Option<Origin>,
        detail: Detail,
    },
}

/// What was there in place of the application that did not see a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that is known.
    Nothing,
    /// By its certificate another pod has the address than the one that was called.
    OtherPod,
    /// The peer proxy, which could not send it on.
    PeerProxy,
}

/// Where the request may go after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// By another connection, at most [`RENEWALS`] times.
    SameEndpoint,
    OtherEndpoint,
    Stop,
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
    pub fn not_sent(reason: Reason, detail: impl Into<Detail>) -> Self {
        Self::not_sent_as(Found::Nothing, reason, detail)
    }

    /// Another pod answers at the address than the one that was called.
    pub fn wrong_pod(detail: impl Into<Detail>) -> Self {
        Self::not_sent_as(Found::OtherPod, Reason::TlsFailed, detail)
    }

    /// The peer proxy answers that it could not send it on, for this reason.
    pub fn not_sent_by_peer(reason: Reason, detail: impl Into<Detail>) -> Self {
        Self::not_sent_as(Found::PeerProxy, reason, detail)
    }

    fn not_sent_as(found: Found, reason: Reason, detail: impl Into<Detail>) -> Self {
        Self::NotSent {
            reason,
            detail: detail.into(),
            shared: false,
            found,
        }
    }

    /// The same, for a request that waited for the attempt of another one.
    #[must_use]
    pub fn shared(&self) -> Self {
        let mut copy = self.clone();
        if let Self::NotSent { shared, .. } = &mut copy {
            *shared = true;
        }
        copy
    }

    /// This proxy knows nothing of its own pod, so it can judge nothing.
    pub fn no_configuration() -> Self {
        let detail = "this proxy has had no configuration yet: its log says why";
        Self::not_sent(Reason::NoConfiguration, detail)
    }

    pub(crate) fn connection_closed(detail: impl Into<Detail>) -> Self {
        Self::ConnectionClosed {
            detail: detail.into(),
        }
    }

    pub fn target_gone(detail: impl Into<Detail>) -> Self {
        Self::TargetGone {
            reason: Reason::ConnectionLost,
            detail: detail.into(),
        }
    }

    /// Whether the peer proxy took the request, and says that it did not come further.
    #[must_use]
    pub const fn is_of_peer(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::NotSent {
                    found: Found::PeerProxy,
                    ..
                }
        )
    }

    /// Whether nothing could be connected to.
    pub const fn is_unconnected(&self) -> bool {
        matches!(
            self,
            Self::NotSent {
                reason: Reason::ConnectFailed,
                ..
            }
        )
    }

    /// The same for a caller whose connection breaks in place of an answer.
    #[must_use]
    pub fn breaks_connection(self) -> Self {
        match self {
            Self::NotSent { reason, detail, .. } => Self::TargetGone { reason, detail },
            other => other,
        }
    }

    pub fn lost(detail: impl Into<Detail>) -> Self {
        Self::Lost {
            detail: detail.into(),
            reset: None,
        }
    }

    pub fn refused(reason: Reason, detail: impl Into<Detail>) -> Self {
        Self::Refused {
            reason,
            by: None,
            detail: detail.into(),
        }
    }

    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotSent { reason, .. }
            | Self::TargetGone { reason, .. }
            | Self::Refused { reason, .. } => *reason,
            Self::ConnectionClosed { .. } | Self::Lost { .. } => Reason::ConnectionLost,
            Self::TimedOut { .. } => Reason::Deadline,
        }
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::NotSent { detail, .. }
            | Self::ConnectionClosed { detail }
            | Self::TargetGone { detail, .. }
            | Self::TimedOut { detail }
            | Self::Lost { detail, .. }
            | Self::Refused { detail, .. } => detail,
        }
    }

    /// Where the request may go now. Anything but [`Next::Stop`] is proof that no
    /// application saw it.
    #[must_use]
    pub const fn next(&self) -> Next {
        match self {
            Self::NotSent { .. } => Next::OtherEndpoint,
            Self::ConnectionClosed { .. } => Next::SameEndpoint,
            Self::TargetGone { .. }
            | Self::Lost { .. }
            | Self::TimedOut { .. }
            | Self::Refused { .. } => Next::Stop,
        }
    }

    /// How the other end reset the stream of the request, where it did. What servers refused is
    /// reported as they sent it: the caller may send it again.
    #[must_use]
    pub const fn reset(&self) -> Option<StreamReset> {
        match self {
            Self::Lost { reset, .. } => *reset,
            Self::TargetGone { .. } => Some(StreamReset(h2::Reason::REFUSED_STREAM)),
            failure if failure.was_refused_by_server() => {
                Some(StreamReset(h2::Reason::REFUSED_STREAM))
            }
            _ => None,
        }
    }

    /// A server of HTTP/2 has seen the request and refused its stream. Of all that is not sent
    /// only this is `connection-lost`, also as a peer proxy reports it.
    #[must_use]
    pub const fn was_refused_by_server(&self) -> bool {
        matches!(
            self,
            Self::NotSent {
                reason: Reason::ConnectionLost,
                ..
            }
        )
    }

    /// With what a refused caller needs to know: which caller it was taken for, and where to
    /// look. It names only the caller itself.
    #[must_use]
    pub fn with_caller(self, caller: &str) -> Self {
        let Self::Refused { reason, by, detail } = self else {
            return self;
        };
        let detail = match reason {
            Reason::NotAllowed => format!(
                "{detail}; the caller is {caller}; run `{}` for the rule that decides, and with \
                 `-o fix` for one that allows the call; `kubectl get traffictarget -A` lists what \
                 is allowed",
                explain(caller)
            )
            .into(),
            Reason::NoIdentity => format!(
                "{detail}; the caller is outside the mesh: give its pod a proxy \
                 (label weft.dev/inject=enabled, then make the pod anew); if plaintext is \
                 to be accepted, annotate the called namespace weft.dev/mtls=permissive, or \
                 weft.dev/permissive-ports with its ports, and where calls are denied allow group \
                 system:unauthenticated in a TrafficTarget"
            )
            .into(),
            _ => detail,
        };
        Self::Refused { reason, by, detail }
    }
}

/// The command that explains a refusal, as far as this proxy may show it: `caller` is
/// `namespace/service-account`, and the Service is one that the caller knows.
fn explain(caller: &str) -> String {
    match caller.split_once('/') {
        Some((namespace, account)) if !caller.contains('?') => format!(
            "weft explain sa/{account} svc/SERVICE METHOD PATH -n {namespace} --to-namespace NAMESPACE"
        ),
        _ => "weft explain FROM svc/SERVICE METHOD PATH -n NAMESPACE".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Claims: C8, attack-93
    #[test]
    fn refusal_names_caller_and_command_that_explains_it() {
        let caller = "shop/web";
        let refused = Failure::refused(Reason::NotAllowed, "no TrafficTarget allows this call");
        let refused = refused.with_caller(caller);
        let detail = refused.detail();
        assert!(
            detail.starts_with("no TrafficTarget allows this call; the caller is shop/web; run `")
                && detail.contains("`weft explain sa/web svc/SERVICE METHOD PATH -n shop ")
                && detail.contains("kubectl get traffictarget")
                && !detail.contains("port-forward"),
            "{detail}"
        );
        // An identity that is no service account's has no name that the command takes.
        let nameless = Failure::refused(Reason::NotAllowed, "no").with_caller("?/?");
        assert!(
            nameless
                .detail()
                .contains("`weft explain FROM svc/SERVICE METHOD PATH"),
            "{nameless}"
        );
        let outside = Failure::refused(Reason::NoIdentity, "plaintext").with_caller("outside");
        let detail = outside.detail();
        assert!(
            detail.contains("weft.dev/inject=enabled")
                && detail.contains("weft.dev/mtls=permissive"),
            "{detail}"
        );
        // Other failures keep their text.
        let other = Failure::refused(Reason::BadRequest, "x").with_caller(caller);
        assert_eq!(other.detail(), "x");
    }

    #[test]
    fn only_what_no_application_saw_may_be_sent_again() {
        let reset = Failure::Lost {
            detail: "reset".into(),
            reset: Some(StreamReset(h2::Reason::CANCEL)),
        };
        for (failure, next, shown) in [
            (
                Failure::not_sent(Reason::TlsFailed, "a"),
                Next::OtherEndpoint,
                "tls-failed: a",
            ),
            (
                Failure::connection_closed("b"),
                Next::SameEndpoint,
                "connection-lost: b",
            ),
            (Failure::lost("c"), Next::Stop, "connection-lost: c"),
            (
                Failure::TimedOut { detail: "e".into() },
                Next::Stop,
                "deadline: e",
            ),
            (reset, Next::Stop, "connection-lost: reset"),
            (
                Failure::refused(Reason::NotAllowed, "d"),
                Next::Stop,
                "not-allowed: d",
            ),
        ] {
            assert_eq!(failure.next(), next, "{failure}");
            assert_eq!(failure.to_string(), shown);
        }
    }

    #[test]
    fn lost_unsent_request_is_reported_as_refused_stream() {
        let refused = Some(StreamReset(h2::Reason::REFUSED_STREAM));
        for (failure, reset) in [
            (Failure::not_sent(Reason::ConnectionLost, "a"), refused),
            (Failure::connection_closed("b"), None),
            (Failure::not_sent(Reason::ConnectFailed, "c"), None),
            (Failure::not_sent(Reason::Overload, "d"), None),
            (Failure::lost("e"), None),
        ] {
            assert_eq!(failure.reset(), reset, "{failure}");
        }
    }
}
