//! May this caller do that, as of now? Every decision is made here, and made
//! again when the policy changes.

use std::sync::Arc;

use http::{HeaderValue, Uri, header};
use policy::access::Verdict;
use policy::http_match::RequestFacts;
use policy::mode::{Enforcement, MtlsMode};
use policy::reason::Reason;

use super::Visit;
use crate::failure::Failure;
use crate::metrics::{AuditLabels, Direction};
use crate::snapshot::Snapshot;

impl Visit {
    /// True when plaintext is refused altogether, whatever the rules say.
    fn needs_identity(&self) -> bool {
        self.peer.is_none() && self.proxy.state.snapshot().mtls() == MtlsMode::Strict
    }

    /// May this caller use the port for opaque bytes, as of now? Counts for audit.
    pub(super) fn admits_tcp(&self) -> Result<(), Failure> {
        let snapshot = self.proxy.state.snapshot();
        self.audit(&snapshot.access.decide_tcp(self.caller(), self.local.port()));
        self.judge_tcp()
    }

    pub(super) fn judge_tcp(&self) -> Result<(), Failure> {
        self.identified()?;
        let snapshot = self.proxy.state.snapshot();
        refused_by(&snapshot.access.decide_tcp(self.caller(), self.local.port()))
    }

    fn identified(&self) -> Result<(), Failure> {
        if self.needs_identity() {
            return Err(Failure::verdict(
                Reason::NoIdentity,
                "plaintext is not accepted here",
            ));
        }
        Ok(())
    }

    fn audit(&self, verdict: &Verdict<'_>) {
        let audit = self.proxy.state.snapshot().access.enforcement == Enforcement::Audit;
        if audit && verdict.allowed && !verdict.would_allow {
            let labels = AuditLabels {
                direction: Direction::inbound,
                peer: Arc::clone(&self.label),
                port: self.local.port(),
            };
            self.proxy.state.metrics.audit.at(&labels).inc();
            tracing::info!(peer = %self.label, port = self.local.port(), "deny would refuse this call");
        }
    }

    /// Returns when this plaintext connection is no longer wanted. One that was
    /// never wanted stays, so that each of its requests is told why.
    pub(super) async fn plaintext_forbidden(&self) {
        let mut changes = self.proxy.state.policy_changes();
        if self.needs_identity() {
            std::future::pending::<()>().await;
        }
        while !self.needs_identity() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when a policy change takes away what was allowed.
    pub(super) async fn revoked(&self) -> Failure {
        let mut changes = self.proxy.state.policy_changes();
        loop {
            // Looked at before the first wait: the change may have come while
            // the way to the application was being opened.
            if let Err(failure) = self.judge_tcp() {
                return failure;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Decides, on the path that will be forwarded and on no other.
    pub(super) fn authorise(&self, parts: &mut http::request::Parts) -> Result<(), Failure> {
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            // Rules may name the host, whatever the version of HTTP; a target
            // with an authority beats the header.
            parts.headers.insert(header::HOST, host);
        }
        let snapshot = self.proxy.state.snapshot();
        let mut path = parts.uri.path().to_owned();
        if snapshot.access.has_http_rule(self.local.port()) {
            let normal = policy::path::normalise(&path).map(std::borrow::Cow::into_owned);
            match (normal, snapshot.access.enforcement) {
                (Ok(normal), Enforcement::Enforce) if normal != path => {
                    parts.uri = with_path(&parts.uri, &normal).ok_or_else(|| {
                        Failure::verdict(Reason::BadRequest, "the path cannot be sent on")
                    })?;
                    path = normal;
                }
                // Audit judges the same path, and changes nothing.
                (Ok(normal), _) => path = normal,
                (Err(error), Enforcement::Enforce) => {
                    return Err(Failure::verdict(Reason::BadRequest, error.to_string()));
                }
                (Err(_), _) => {}
            }
        }
        let facts = RequestFacts {
            method: &parts.method,
            path: &path,
            headers: &parts.headers,
        };
        self.audit(
            &snapshot
                .access
                .decide_http(self.caller(), self.local.port(), &facts),
        );
        self.judge(parts, &path)
            .map_err(|failure| failure.told_to(&self.label))
    }

    /// Judges a request by the normal form of its path.
    fn judge(&self, parts: &http::request::Parts, path: &str) -> Result<(), Failure> {
        self.identified()?;
        let snapshot = self.proxy.state.snapshot();
        let facts = RequestFacts {
            method: &parts.method,
            path,
            headers: &parts.headers,
        };
        refused_by(
            &snapshot
                .access
                .decide_http(self.caller(), self.local.port(), &facts),
        )
    }

    /// Returns when a request that was allowed would be refused by now.
    pub(super) async fn revoked_request(&self, parts: &http::request::Parts) {
        let mut changes = self.proxy.state.policy_changes();
        while self.judge(parts, parts.uri.path()).is_ok() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// True where HTTP rules decide, so that nothing may pass as opaque bytes that
/// an application might read as HTTP. Audit refuses nothing, this neither.
pub(super) fn guards(snapshot: &Snapshot, port: u16) -> bool {
    snapshot.access.enforcement == Enforcement::Enforce && snapshot.access.has_http_rule(port)
}

fn refused_by(verdict: &Verdict<'_>) -> Result<(), Failure> {
    if verdict.allowed {
        return Ok(());
    }
    let reason = verdict.reason.unwrap_or(Reason::NotAllowed);
    Err(Failure::verdict(
        reason,
        "no TrafficTarget allows this call",
    ))
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}
