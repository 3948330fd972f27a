//! Checks the rights that the change of a dry run takes, and builds the refusal without them.
//!
//! Which right it takes to put an object depends on whether one of its name is there, and a user
//! without rights there must not learn that. So the API server is queried the same in both cases,
//! which takes as long, and a refusal is the same, unless the user can find out without it.

use crds::smi::{STORAGE_VERSION, SmiKind};
use crds::weft;
use futures::future;
use http::StatusCode;
use model::translate::change::{Change, exists};
use model::world::{ObjectKey, World};
use policy::name::Kind;

use crate::aggregated::access::{AccessDecision, Attributes, Gate, refusal};
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;

/// The user who would make a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Author<'a> {
    pub(super) user: &'a User,
    pub(super) gate: &'a Gate,
}

/// A right, and whether the user has it.
struct Answer {
    right: Attributes,
    decision: AccessDecision,
}

impl Answer {
    fn is_allowed(&self) -> bool {
        self.decision == AccessDecision::Allowed
    }
}

impl Author<'_> {
    /// Whether the user may make all of this change.
    ///
    /// # Errors
    /// When that is not allowed, or the API server does not respond.
    pub(super) async fn must_be_allowed(
        self,
        change: &Change,
        world: &World,
    ) -> Result<(), Refusal> {
        for (kind, object) in &change.objects {
            let key = model::translate::key(&object.metadata);
            let there = exists(world, *kind, &key);
            self.must_put(*kind, &key, there).await?;
        }
        for (kind, key) in &change.delete {
            let delete = self.review(right("delete", *kind, key)).await?;
            if !delete.is_allowed() {
                return Err(self.refused(&delete));
            }
        }
        for (namespace, _) in &change.access {
            let update = self.review(of_namespace("update", namespace)).await?;
            if update.is_allowed() {
                continue;
            }
            // As `kubectl annotate` does.
            let patch = self.review(of_namespace("patch", namespace)).await?;
            if !patch.is_allowed() {
                return Err(self.refused(&update));
            }
        }
        Ok(())
    }

    /// What the API server requires for `kubectl apply` and `kubectl replace`: `create` where
    /// nothing is there, and else one of `update` and `patch`.
    async fn must_put(self, kind: Kind, key: &ObjectKey, there: bool) -> Result<(), Refusal> {
        let (create, update) = future::try_join(
            self.review(right("create", kind, key)),
            self.review(right("update", kind, key)),
        )
        .await?;
        if create.is_allowed() && update.is_allowed() {
            return Ok(());
        }
        let (patch, get) = future::try_join(
            self.review(right("patch", kind, key)),
            self.review(right("get", kind, key)),
        )
        .await?;
        let may_put = if there {
            update.is_allowed() || patch.is_allowed()
        } else {
            create.is_allowed()
        };
        if may_put {
            return Ok(());
        }
        // A user who creates one that is there learns that from the API server.
        let may_know = get.is_allowed() || create.is_allowed();
        let missing = if there && may_know { update } else { create };
        Err(self.refused(&missing))
    }

    async fn review(self, right: Attributes) -> Result<Answer, Refusal> {
        let decision = self.gate.admits(self.user, &right).await;
        let decision = decision.map_err(Refusal::unavailable)?;
        Ok(Answer { right, decision })
    }

    fn refused(self, missing: &Answer) -> Refusal {
        let right = &missing.right;
        let reason = match &missing.decision {
            AccessDecision::Denied(reason) => reason.as_str(),
            AccessDecision::Allowed => "",
        };
        Refusal {
            about: Some((right.resource, right.name.clone())),
            ..Refusal::new(
                StatusCode::FORBIDDEN,
                "Forbidden",
                refusal(self.user, right, reason),
            )
        }
    }
}

fn right(verb: &'static str, kind: Kind, key: &ObjectKey) -> Attributes {
    let (group, version, resource) = match SmiKind::of(kind) {
        Some(smi) => (smi.group(), STORAGE_VERSION, smi.plural()),
        None if kind.group() == gateway_api::GROUP => {
            let plural = match kind {
                Kind::GrpcRoute => "grpcroutes",
                Kind::GatewayTcpRoute => "tcproutes",
                Kind::ReferenceGrant => "referencegrants",
                _ => "httproutes",
            };
            (gateway_api::GROUP, "v1", plural)
        }
        None => {
            let plural = match kind {
                Kind::CanaryRelease => weft::CANARY_RELEASES,
                Kind::FaultExperiment => weft::FAULT_EXPERIMENTS,
                Kind::ExternalService => weft::EXTERNAL_SERVICES,
                Kind::Revocation => weft::REVOCATIONS,
                _ => weft::TRAFFIC_POLICIES,
            };
            (weft::GROUP, weft::VERSION, plural)
        }
    };
    Attributes {
        group,
        verb,
        version,
        resource,
        subresource: "",
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}

fn of_namespace(verb: &'static str, namespace: &ObjectKey) -> Attributes {
    Attributes {
        group: "",
        verb,
        version: "v1",
        resource: "namespaces",
        subresource: "",
        namespace: String::new(),
        name: namespace.name.to_string(),
    }
}
