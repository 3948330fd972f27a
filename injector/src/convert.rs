//! Handles the API server's conversion reviews.
//!
//! Every review gets a response, because a review without one fails the list of a whole kind and
//! gives no reason. Only a body that holds no review is refused as such.

use std::fmt;

use crds::{convert, shallow::DepthLimitedValue};
use kube::core::Status;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::json;

/// Why there is no review to answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadReview {
    #[error("the body is not a ConversionReview: {0}")]
    Json(#[from] serde_json::Error),
}

/// An answer, and how it counts.
#[derive(Debug)]
pub(crate) struct Converted {
    /// A ConversionReview.
    pub(crate) review: Vec<u8>,
    /// Why nothing was converted, if so.
    pub(crate) refusal: Option<String>,
    pub(crate) outcome: &'static str,
    pub(crate) reason: &'static str,
}

/// The part of a review that names the request to answer.
#[derive(Deserialize)]
struct ReviewMeta {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    #[serde(default, rename = "desiredAPIVersion")]
    desired: String,
    /// Read later, one by one; here so that there is one list of them.
    #[serde(default)]
    objects: Option<IgnoredAny>,
}

/// The answer to the review in `body`.
///
/// A list may hold thousands of objects, each of which takes many times its length
/// once it is read, so only one of them is at a time.
pub(crate) fn answer(body: &[u8]) -> Result<Converted, BadReview> {
    let review_meta: ReviewMeta = serde_json::from_slice(body)?;
    let request = review_meta.request;
    if review_meta.api_version != "apiextensions.k8s.io/v1" {
        let message = format!(
            "this is a ConversionReview of version {:?}, and apiextensions.k8s.io/v1 is needed",
            review_meta.api_version.chars().take(80).collect::<String>()
        );
        return Ok(failure(&request.uid, message, "failed", "bad-version"));
    }
    let mut objects = Objects {
        desired: &request.desired,
        converted: Vec::new(),
        failure: None,
    };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let field = Field("request", Field("objects", &mut objects));
    let read = match request.objects {
        Some(_) => field.deserialize(&mut reader),
        None => Err(serde_json::Error::missing_field("objects")),
    };
    if let Err(error) = read {
        let message = format!("the ConversionReview cannot be read: {error}");
        return Ok(failure(&request.uid, message, "failed", "unreadable"));
    }
    if let Some(message) = objects.failure {
        return Ok(failure(&request.uid, message, "refused", ""));
    }
    // The beginning and the end of what `around` writes, with the list between them.
    let around = review(&json!({
        "uid": request.uid,
        "result": Status::success(),
        "convertedObjects": [],
    }));
    let mut review = objects.converted;
    let around = around.to_string();
    let Some((before, after)) = around.split_once(r#""convertedObjects":[]"#) else {
        let message = "the answer cannot be written".to_owned();
        return Ok(failure(&request.uid, message, "failed", "unreadable"));
    };
    let before = format!(r#"{before}"convertedObjects":["#);
    review.splice(..0, before.into_bytes());
    review.push(b']');
    review.extend_from_slice(after.as_bytes());
    Ok(Converted {
        review,
        refusal: None,
        outcome: "converted",
        reason: "",
    })
}

/// Reads one field of a map and passes over the others.
struct Field<S>(&'static str, S);

impl<'de, S: DeserializeSeed<'de, Value = ()>> DeserializeSeed<'de> for Field<S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de, Value = ()>> Visitor<'de> for Field<S> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a map with {}", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Self(name, inner) = self;
        let mut inner = Some(inner);
        while let Some(key) = fields.next_key::<String>()? {
            match inner.take_if(|_| key == name) {
                Some(inner) => fields.next_value_seed(inner)?,
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Converts a list of objects one by one, up to the first that cannot be.
struct Objects<'a> {
    desired: &'a str,
    /// JSON, with commas between.
    converted: Vec<u8>,
    failure: Option<String>,
}

impl<'de> DeserializeSeed<'de> for &mut Objects<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Objects<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<(), A::Error> {
        // A part that is nested without end becomes a text: refusing it would refuse the whole list
        // of its kind to every client.
        while let Some(DepthLimitedValue(object)) = objects.next_element()? {
            match convert::one(&object, self.desired) {
                Ok(object) => {
                    if !self.converted.is_empty() {
                        self.converted.push(b',');
                    }
                    serde_json::to_writer(&mut self.converted, &object).map_err(Error::custom)?;
                }
                Err(message) => {
                    self.failure = Some(message);
                    self.converted = Vec::new();
                    while objects.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn review(response: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "response": response,
    })
}

fn failure(uid: &str, message: String, outcome: &'static str, reason: &'static str) -> Converted {
    let (word, code) = match outcome {
        "refused" => ("ConversionFailed", 0),
        _ => ("BadRequest", 400),
    };
    let status = Status::failure(&message, word).with_code(code);
    Converted {
        review: review(&json!({ "uid": uid, "result": status, "convertedObjects": [] }))
            .to_string()
            .into_bytes(),
        refusal: Some(message),
        outcome,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn parsed(converted: &Converted) -> Value {
        serde_json::from_slice(&converted.review).unwrap()
    }

    fn review(api_version: &str, objects: &Value) -> Value {
        json!({"apiVersion": api_version, "kind": "ConversionReview", "request": {
            "uid": "u-1", "desiredAPIVersion": "split.smi-spec.io/v1alpha4", "objects": objects,
        }})
    }

    #[test]
    fn every_convertible_review_is_answered() {
        for (body, word, reason) in [
            (
                review("apiextensions.k8s.io/v1beta1", &json!([])),
                "v1beta1",
                "bad-version",
            ),
            (
                review("apiextensions.k8s.io/v1", &json!({})),
                "cannot be read",
                "unreadable",
            ),
            (
                review("apiextensions.k8s.io/v1", &json!(["text"])),
                "must be a JSON object",
                "",
            ),
            (
                review(
                    "apiextensions.k8s.io/v1",
                    &json!([{"apiVersion": "v1", "kind": "Pod"}]),
                ),
                "Pod of v1 is not served",
                "",
            ),
        ] {
            let converted = answer(body.to_string().as_bytes()).unwrap();
            let review = parsed(&converted);
            let response = &review["response"];
            assert_eq!(response["uid"], "u-1");
            assert_eq!(response["result"]["status"], "Failure");
            let message = response["result"]["message"].as_str().unwrap();
            assert!(message.contains(word), "{message}");
            assert_eq!(converted.reason, reason);
            assert_eq!(review["kind"], "ConversionReview");
            assert_eq!(review["apiVersion"], "apiextensions.k8s.io/v1");
        }
    }

    #[test]
    fn object_nested_without_end_is_converted_with_its_neighbours() {
        let group = |name: &str, headers: &str| {
            format!(
                r#"{{"apiVersion": "specs.smi-spec.io/v1alpha2", "kind": "HTTPRouteGroup",
                "metadata": {{"name": "{name}"}},
                "matches": [{{"name": "m", "headers": {headers}}}]}}"#
            )
        };
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        let body = format!(
            r#"{{"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request":
            {{"uid": "u-1", "desiredAPIVersion": "specs.smi-spec.io/v1alpha4", "objects": [{}, {}]}}}}"#,
            group("deep", &deep),
            group("good", r#"{"a": "b"}"#)
        );
        let converted = answer(body.as_bytes()).unwrap();
        assert_eq!(converted.outcome, "converted");
        let review = parsed(&converted);
        let objects = &review["response"]["convertedObjects"];
        assert_eq!(objects[1]["metadata"]["name"], "good");
        assert_eq!(objects[1]["spec"]["matches"][0]["headers"]["a"], "b");
        // Still nothing that could be taken for a header.
        assert!(objects[0]["spec"]["matches"][0]["headers"]["a"].is_object());
    }

    /// What is answered object by object is what converting all of them gives.
    #[test]
    fn answer_is_that_of_the_whole_review() {
        let split = |name: &str, version: &str| {
            json!({"apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit",
                "metadata": {"name": name, "namespace": "shop", "annotations": {"a": "convertedObjects\":[]"}},
                "spec": {"service": "web", "backends": [{"service": "a", "weight": 1}]}})
        };
        let lists = [
            json!([]),
            json!([split("a", "v1alpha2"), split("b", "v1alpha4")]),
            json!([split("a", "v1alpha2"), {"apiVersion": "v1", "kind": "Pod"}, split("b", "v1alpha4")]),
        ];
        for objects in lists {
            let mut review_meta = review("apiextensions.k8s.io/v1", &objects);
            // A uid that looks like the place where the list goes.
            review_meta["request"]["uid"] = "\"convertedObjects\":[]".into();
            let converted = answer(review_meta.to_string().as_bytes()).unwrap();
            let whole = convert::review(serde_json::from_value(review_meta).unwrap());
            assert_eq!(parsed(&converted), serde_json::to_value(whole).unwrap());
        }
    }

    #[test]
    fn what_is_no_review_has_no_answer() {
        for body in ["", "{", "null", "[]", "{}", r#"{"request":{}}"#] {
            assert!(answer(body.as_bytes()).is_err(), "{body}");
        }
    }
}
