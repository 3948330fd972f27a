//! Checks whether a user may read what a request names. The API server decides by a
//! SubjectAccessReview, as for its own objects; its results are cached for a moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::front_proxy::{User, digest};

/// How long an answer holds. A right that is taken away is gone after it.
const CACHED_FOR: Duration = Duration::from_secs(5);
/// Answers that are kept, each below 1 KiB: of a query its hash, of a refusal so many bytes of the
/// reason.
const MAX_CACHED: usize = 1024;
const MAX_REASON: usize = 512;
/// Time for one query.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the user must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attributes {
    /// Group of the API.
    pub group: &'static str,
    /// `get` or `list`.
    pub verb: &'static str,
    /// Version of the API.
    pub version: &'static str,
    /// Plural.
    pub resource: &'static str,
    /// Below the resource, or empty.
    pub subresource: &'static str,
    /// Empty for all.
    pub namespace: String,
    /// Empty for all.
    pub name: String,
}

/// Hash of a user and of the resource requested.
type Question = [u8; 32];

/// Queries the API server. Clones share what is kept.
#[derive(Clone)]
pub(crate) struct Gate {
    reviews: Api<SubjectAccessReview>,
    cached: Arc<Mutex<HashMap<Question, (AccessDecision, Instant)>>>,
}

opaque_debug!(Gate);

/// What the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessDecision {
    /// The user may.
    Allowed,
    /// The user may not; why, if the API server gives a reason.
    Denied(String),
}

impl Gate {
    /// A gate that queries through `client`.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            reviews: Api::all(client),
            cached: Arc::default(),
        }
    }

    /// Whether `user` may do this; as the API server says, or said a moment ago.
    ///
    /// # Errors
    /// When the API server does not say.
    pub(crate) async fn admits(
        &self,
        user: &User,
        attributes: &Attributes,
    ) -> Result<AccessDecision, String> {
        let question = digest(&(user, attributes));
        if let Some((verdict, until)) = self.cached.lock().get(&question)
            && Instant::now() < *until
        {
            return Ok(verdict.clone());
        }
        let verdict = self.check(user, attributes).await?;
        self.cache(question, verdict.clone());
        Ok(verdict)
    }

    /// The same, queried in any case and not kept: for callers that query much at once and keep the
    /// results themselves.
    ///
    /// # Errors
    /// When the API server does not say.
    pub(crate) async fn check(
        &self,
        user: &User,
        attributes: &Attributes,
    ) -> Result<AccessDecision, String> {
        let review = SubjectAccessReview {
            spec: spec(user, attributes),
            ..SubjectAccessReview::default()
        };
        let params = PostParams::default();
        let answer = timeout(PATIENCE, self.reviews.create(&params, &review))
            .await
            .map_err(|_| {
                "the API server did not answer in time whether this is allowed".to_owned()
            })?
            .map_err(|error| {
                format!("the API server could not be queried whether this is allowed: {error}")
            })?;
        let status = answer.status.unwrap_or_default();
        Ok(if status.allowed {
            AccessDecision::Allowed
        } else {
            let reason = status.reason.unwrap_or_default();
            AccessDecision::Denied(beginning(reason, MAX_REASON))
        })
    }

    fn cache(&self, question: Question, verdict: AccessDecision) {
        let now = Instant::now();
        let mut cached = self.cached.lock();
        if cached.len() >= MAX_CACHED {
            cached.retain(|_, (_, until)| now < *until);
        }
        // Full of what is still fresh: this one is queried again next time.
        if cached.len() < MAX_CACHED {
            cached.insert(question, (verdict, now + CACHED_FOR));
        }
    }
}

/// The first bytes of a text, whole characters.
fn beginning(mut text: String, most: usize) -> String {
    let end = text.floor_char_boundary(most);
    text.truncate(end);
    text
}

fn spec(user: &User, attributes: &Attributes) -> SubjectAccessReviewSpec {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SubjectAccessReviewSpec {
        user: some(&user.name),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
        resource_attributes: Some(ResourceAttributes {
            group: Some(attributes.group.to_owned()),
            version: some(attributes.version),
            resource: some(attributes.resource),
            subresource: some(attributes.subresource),
            namespace: some(&attributes.namespace),
            name: some(&attributes.name),
            verb: some(attributes.verb),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    }
}

/// The message for a user without the right.
pub(crate) fn refusal(user: &User, attributes: &Attributes, reason: &str) -> String {
    let resource = match attributes.subresource {
        "" => attributes.resource.to_owned(),
        sub => format!("{}/{sub}", attributes.resource),
    };
    let scope = match attributes.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    format!(
        "user {:?} cannot {} resource {resource:?} in API group {:?} {scope}{why}",
        user.name, attributes.verb, attributes.group
    )
}
