//! The two halves of a conversation with the API server: AdmissionReview v1.
//!
//! The object stays JSON: nothing is lost that our types do not know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crds::shallow::Shallow;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Longest warning, in characters; the API server cuts what is longer.
const LONGEST_WARNING: usize = 256;
/// Longest message of a refusal, in characters. Room for a dozen mistakes.
const LONGEST_MESSAGE: usize = 4096;

/// What the API server asks about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    /// Comes back in the answer.
    pub(crate) uid: String,
    /// Kind of the object.
    pub(crate) kind: Kind,
    /// `status` and the like; None for the object itself.
    #[serde(default)]
    pub(crate) sub_resource: Option<String>,
    /// Of the object. The object itself may not say it yet.
    #[serde(default)]
    pub(crate) namespace: String,
    /// Empty while the name is still to be generated.
    #[serde(default)]
    pub(crate) name: String,
    /// CREATE, UPDATE, DELETE or CONNECT.
    #[serde(default)]
    pub(crate) operation: String,
    /// As it shall be; null for DELETE.
    #[serde(default, deserialize_with = "shallow")]
    pub(crate) object: Value,
    /// As it was; null for CREATE.
    #[serde(default, deserialize_with = "shallow")]
    pub(crate) old_object: Value,
}

/// An object that is nested without end is judged like any other, not let by unseen.
fn shallow<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Shallow::deserialize(deserializer).map(|Shallow(value)| value)
}

/// A kind of object.
#[derive(Debug, Deserialize)]
pub(crate) struct Kind {
    #[serde(default)]
    pub(crate) group: String,
    #[serde(default)]
    pub(crate) kind: String,
}

/// Why a body is not a review.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadReview {
    #[error("the body is not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the body is an AdmissionReview of version {0:?}, and admission.k8s.io/v1 is needed")]
    Version(String),
    #[error("request.namespace is no name of a namespace")]
    Namespace,
}

/// Reads the body of a call.
pub(crate) fn parse(body: &[u8]) -> Result<Request, BadReview> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Review {
        api_version: String,
        request: Request,
    }
    let review: Review = serde_json::from_slice(body)?;
    if review.api_version != "admission.k8s.io/v1" {
        return Err(BadReview::Version(
            review.api_version.chars().take(80).collect(),
        ));
    }
    // It becomes part of a path of the API server, with the rights of this process, and
    // anybody in the cluster can send a review.
    let namespace = &review.request.namespace;
    if !namespace.is_empty() && !is_dns_label(namespace) {
        return Err(BadReview::Namespace);
    }
    Ok(review.request)
}

/// RFC 1123, as the API server demands of the name of a namespace.
fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What the API server is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// None allows.
    pub(crate) refusal: Option<String>,
    /// JSON patch; None changes nothing.
    pub(crate) patch: Option<Value>,
    /// Shown to the user by kubectl.
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    /// Yes, without a change.
    pub(crate) fn allow() -> Self {
        Self::default()
    }

    /// No, and why.
    pub(crate) fn refuse(message: String) -> Self {
        Self {
            refusal: Some(message),
            ..Self::default()
        }
    }

    /// The AdmissionReview that answers the request with `uid`.
    pub(crate) fn into_review(self, uid: &str) -> Value {
        let mut response = json!({ "uid": uid, "allowed": self.refusal.is_none() });
        if let Some(message) = self.refusal {
            response["status"] = json!({
                "status": "Failure",
                "reason": "Invalid",
                "code": 422,
                "message": cut(&message, LONGEST_MESSAGE),
            });
        }
        if let Some(patch) = self.patch {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch.to_string()).into();
        }
        if !self.warnings.is_empty() {
            let warnings = self
                .warnings
                .iter()
                .map(|warning| cut(warning, LONGEST_WARNING));
            response["warnings"] = warnings.collect();
        }
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        })
    }
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_is_sent_as_base64_and_refusal_as_a_status() {
        let answer = Answer {
            patch: Some(json!([])),
            ..Answer::allow()
        };
        let review = answer.into_review("u1");
        assert_eq!(review["response"]["uid"], "u1");
        assert_eq!(review["response"]["allowed"], true);
        assert_eq!(review["response"]["patchType"], "JSONPatch");
        assert_eq!(review["response"]["patch"], "W10=");

        let review = Answer::refuse("no".into()).into_review("u2");
        assert_eq!(review["response"]["allowed"], false);
        assert_eq!(review["response"]["status"]["message"], "no");
        assert_eq!(review["response"]["status"]["code"], 422);
    }

    #[test]
    fn only_the_name_of_a_namespace_is_read_as_one() {
        let read = |namespace: &str| {
            let body = json!({
                "apiVersion": "admission.k8s.io/v1",
                "request": { "uid": "u", "kind": {}, "namespace": namespace },
            });
            parse(body.to_string().as_bytes()).map(|request| request.namespace)
        };
        let longest = "a".repeat(63);
        for good in ["", "shop", "a-1", "0", &longest] {
            assert_eq!(read(good).unwrap(), good);
        }
        let too_long = "a".repeat(64);
        for bad in [
            "shop/secrets/password",
            "..",
            ".",
            "shop?watch=true",
            "shop#",
            "shop%2fx",
            "Shop",
            "-a",
            "a-",
            "a.b",
            "a b",
            "shop\n",
            "\u{e4}",
            &too_long,
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert_eq!(
                error, "request.namespace is no name of a namespace",
                "{bad}"
            );
        }
    }

    #[test]
    fn review_of_another_version_is_refused() {
        let body = json!({
            "apiVersion": "admission.k8s.io/v1beta1",
            "request": { "uid": "u", "kind": {} },
        });
        let error = parse(body.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("v1beta1"));
    }
}
