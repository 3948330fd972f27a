//! Parses AdmissionReview v1 requests and writes their responses.
//!
//! The object stays JSON: fields that our types do not know are not lost.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crds::label_syntax::is_dns_label;
use crds::shallow::Authored;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Longest warning, in characters; the API server cuts what is longer.
const LONGEST_WARNING: usize = 256;
/// Longest message of a refusal, in characters. Room for a dozen validation errors.
const LONGEST_MESSAGE: usize = 4096;

/// What the API server requests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    /// Comes back in the answer.
    pub(crate) uid: String,
    /// Kind of the object.
    pub(crate) kind: GroupKind,
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
    #[serde(default, deserialize_with = "authored")]
    pub(crate) object: Value,
    /// As it was; null for CREATE.
    #[serde(default, deserialize_with = "authored")]
    pub(crate) old_object: Value,
}

/// An object that is nested without end is judged like any other, not let by unseen.
fn authored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Authored::deserialize(deserializer).map(|Authored(value)| value)
}

/// A kind of object.
#[derive(Debug, Deserialize)]
pub(crate) struct GroupKind {
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

/// What the API server requests, without the objects but for one label.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    /// As in [`Request`], like the others.
    pub(crate) uid: String,
    kind: GroupKind,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    pub(crate) namespace: String,
    #[serde(default)]
    operation: String,
    /// Nothing may come of it but the answer.
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    #[serde(default)]
    object: Option<Labelled>,
}

#[derive(Debug, Deserialize)]
struct Labelled {
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Debug, Deserialize)]
struct Labels {
    #[serde(default, rename = "pod-template-hash")]
    revision: Option<IgnoredAny>,
}

impl About {
    /// Whether a pod is to be made.
    pub(crate) fn is_new_pod(&self) -> bool {
        self.kind.kind == "Pod"
            && self.kind.group.is_empty()
            && self.operation == "CREATE"
            && self.sub_resource.as_deref().is_none_or(str::is_empty)
    }

    /// Whether the pod may be a Deployment's, whose pods all have this label.
    pub(crate) fn has_revision(&self) -> bool {
        let metadata = self.object.as_ref().and_then(|pod| pod.metadata.as_ref());
        let labels = metadata.and_then(|metadata| metadata.labels.as_ref());
        labels.is_some_and(|labels| labels.revision.is_some())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<R> {
    api_version: String,
    request: R,
}

/// Reads the body of a call.
pub(crate) fn parse(body: &[u8]) -> Result<Request, BadReview> {
    read(body, |request: &Request| &request.namespace)
}

/// Passes over the rest of the objects, so that it takes next to nothing.
pub(crate) fn about(body: &[u8]) -> Result<About, BadReview> {
    read(body, |about: &About| &about.namespace)
}

fn read<R: DeserializeOwned>(
    body: &[u8],
    namespace: impl FnOnce(&R) -> &str,
) -> Result<R, BadReview> {
    let review: Review<R> = serde_json::from_slice(body)?;
    if review.api_version != "admission.k8s.io/v1" {
        return Err(BadReview::Version(
            review.api_version.chars().take(80).collect(),
        ));
    }
    // It becomes part of a path of the API server, with the rights of this process, and any pod of
    // the cluster can send a review.
    let namespace = namespace(&review.request);
    if !namespace.is_empty() && !is_dns_label(namespace) {
        return Err(BadReview::Namespace);
    }
    Ok(review.request)
}

/// What it takes in memory to read a body, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// As one value.
    pub(crate) whole: usize,
    /// Of the largest value that stands in a list of the request, as the objects of a
    /// conversion do.
    pub(crate) part: usize,
}

/// A map's first entry takes a node for eleven: 632 bytes, as the allocator rounds them.
const MAP_BYTES: usize = 640;
/// A list begins with room for four values of 32 bytes.
const LIST_BYTES: usize = 128;
/// A value in a list that has just grown to twice its length, beside the one before.
const ENTRY_BYTES: usize = 96;
/// What an entry of a map takes more than that. Nodes are at least five elevenths full,
/// and there is a node above each six: 160 bytes for an entry.
const FIELD_BYTES: usize = 64;
/// A text besides its bytes: the allocator's least, or what it rounds up.
const TEXT_BYTES: usize = 32;
/// How deep the objects of a conversion stand: in a list in the request in the review.
const PART_DEPTH: usize = 3;

/// Looks at a body without reading it: every quote, bracket, comma and colon outside of
/// texts costs what it becomes. What is no JSON costs whatever it looks like, and
/// reading it ends where it begins to be none.
pub(crate) fn cost(body: &[u8]) -> Cost {
    let mut cost = Cost::default();
    let (mut depth, mut begin) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    // What the last bracket costs if something follows in it; empty ones take nothing.
    let mut opened = 0;
    for byte in body {
        cost.whole += 1;
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'}' | b']' => opened = 0,
            _ => cost.whole += std::mem::take(&mut opened),
        }
        match byte {
            b'"' => {
                in_text = true;
                cost.whole += TEXT_BYTES;
            }
            b'{' | b'[' => {
                if depth == PART_DEPTH {
                    begin = cost.whole;
                }
                depth += 1;
                opened = if *byte == b'{' { MAP_BYTES } else { LIST_BYTES };
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == PART_DEPTH {
                    cost.part = cost.part.max(cost.whole - begin);
                }
            }
            b',' => cost.whole += ENTRY_BYTES,
            b':' => cost.whole += FIELD_BYTES,
            _ => {}
        }
    }
    if depth > PART_DEPTH {
        cost.part = cost.part.max(cost.whole - begin);
    }
    cost
}

/// What a value that has been read takes, at most.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => TEXT_BYTES + text.len(),
        Value::Array(entries) if entries.is_empty() => 0,
        Value::Array(entries) => {
            LIST_BYTES.max(entries.len() * ENTRY_BYTES) + entries.iter().map(size).sum::<usize>()
        }
        Value::Object(fields) if fields.is_empty() => 0,
        Value::Object(fields) => {
            let entry = |(name, value): (&String, &Value)| TEXT_BYTES + name.len() + size(value);
            MAP_BYTES.max(fields.len() * (ENTRY_BYTES + FIELD_BYTES))
                + fields.iter().map(entry).sum::<usize>()
        }
    }
}

/// What is returned to the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AdmissionResponse {
    /// None allows.
    pub(crate) refusal: Option<String>,
    /// JSON patch; None changes nothing.
    pub(crate) patch: Option<Value>,
    /// Shown to the user by kubectl.
    pub(crate) warnings: Vec<String>,
}

impl AdmissionResponse {
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
    fn review_cost_counts_parsed_structure_not_string_contents() {
        let text = json!({"a": "[{,\\\"{{{{".repeat(1000)}).to_string();
        let plain = cost(text.as_bytes()).whole;
        assert!(plain < text.len() + 2 * MAP_BYTES, "{plain}");
        let maps = format!("[{}]", vec![r#"{"":0}"#; 1000].join(","));
        assert!(cost(maps.as_bytes()).whole > 1000 * MAP_BYTES);
        // Only the largest object of a conversion counts, not their number.
        let one = r#"{"a":{"b":[1,2,3]}}"#;
        let list = |count| {
            let all = vec![one; count].join(",");
            cost(format!(r#"{{"request":{{"uid":"u","objects":[{all}]}}}}"#).as_bytes())
        };
        assert_eq!(list(1).part, list(500).part);
        assert!(list(500).whole > 100 * list(1).whole);
        let single = cost(one.as_bytes()).whole;
        assert!(list(1).part.abs_diff(single) <= 1, "{:?} {single}", list(1));
    }

    #[test]
    fn review_cost_is_at_least_parsed_size() {
        let entries = |entry: &dyn Fn(usize) -> String| {
            let all: Vec<String> = (0..500).map(entry).collect();
            all.join(",")
        };
        for text in [
            format!("{{{}}}", entries(&|i| format!(r#""{i:x}":0"#))),
            format!("{{{}}}", entries(&|i| format!(r#""{i}":"""#))),
            format!("[{}]", entries(&|_| r#"{"":0}"#.to_owned())),
            format!("[{}]", entries(&|_| r#"{ "a" : [ 1 ] }"#.to_owned())),
            format!("[{}]", entries(&|_| "[[]]".to_owned())),
            format!("[{}]", entries(&|_| "{}".to_owned())),
            format!("[{}]", entries(&|i| format!(r#""{}""#, "x".repeat(i)))),
        ] {
            let size = size(&serde_json::from_str(&text).unwrap());
            let cost = cost(text.as_bytes()).whole;
            let start: String = text.chars().take(30).collect();
            assert!(cost >= size, "{start}: {cost} < {size}");
            assert!(cost < 2 * size + 4 * text.len(), "{start}: {cost}, {size}");
        }
        let empty = format!("[{}]", entries(&|_| "{}".to_owned()));
        let cost = cost(empty.as_bytes()).whole;
        assert!(
            cost < 500 * MAP_BYTES / 4,
            "an empty map takes nothing: {cost}"
        );
    }

    #[test]
    fn patch_is_base64_and_refusal_is_status() {
        let answer = AdmissionResponse {
            patch: Some(json!([])),
            ..AdmissionResponse::allow()
        };
        let review = answer.into_review("u1");
        assert_eq!(review["response"]["uid"], "u1");
        assert_eq!(review["response"]["allowed"], true);
        assert_eq!(review["response"]["patchType"], "JSONPatch");
        assert_eq!(review["response"]["patch"], "W10=");

        let review = AdmissionResponse::refuse("no".into()).into_review("u2");
        assert_eq!(review["response"]["allowed"], false);
        assert_eq!(review["response"]["status"]["message"], "no");
        assert_eq!(review["response"]["status"]["code"], 422);
    }

    #[test]
    fn request_namespace_must_be_valid_name() {
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
