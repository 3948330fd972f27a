//! Answers the API server's conversion reviews.
//!
//! Whatever a review holds, it gets an answer, because one without fails the list of
//! a whole kind and tells nobody why. Only a body in which no review can be found is
//! refused as such: there is nobody to answer then.

use crds::{convert, shallow::Shallow};
use http::StatusCode;
use kube::core::{
    Status,
    conversion::{ConversionResponse, ConversionReview},
};
use serde::Deserialize;
use serde_json::Value;

/// Why there is nobody to answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadReview {
    #[error("the body is not a ConversionReview: {0}")]
    Json(#[from] serde_json::Error),
}

/// An answer, and how it counts.
pub(crate) struct Converted {
    pub(crate) review: Value,
    pub(crate) outcome: &'static str,
    pub(crate) reason: &'static str,
}

/// The part of a review that names whom to answer.
#[derive(Deserialize)]
struct Asked {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    request: Uid,
}

#[derive(Deserialize)]
struct Uid {
    uid: String,
}

/// The answer to the review in `body`.
pub(crate) fn answer(body: &[u8]) -> Result<Converted, BadReview> {
    let asked: Asked = serde_json::from_slice(body)?;
    if asked.api_version != "apiextensions.k8s.io/v1" {
        let message = format!(
            "this is a ConversionReview of version {:?}, and apiextensions.k8s.io/v1 is needed",
            asked.api_version.chars().take(80).collect::<String>()
        );
        return Ok(failure(asked.request.uid, &message, "bad-version"));
    }
    // A part that is nested without end becomes a text: refusing it would refuse the
    // whole list of its kind to everybody.
    let read = serde_json::from_slice(body).map(|Shallow(review)| review);
    let review: ConversionReview = match read.and_then(serde_json::from_value) {
        Ok(review) => review,
        Err(error) => {
            let message = format!("the ConversionReview cannot be read: {error}");
            return Ok(failure(asked.request.uid, &message, "unreadable"));
        }
    };
    let review = serde_json::to_value(convert::review(review))?;
    let succeeded = review.pointer("/response/result/status") == Some(&"Success".into());
    Ok(Converted {
        review,
        outcome: if succeeded { "converted" } else { "refused" },
        reason: "",
    })
}

fn failure(uid: String, message: &str, reason: &'static str) -> Converted {
    let status = Status::failure(message, "BadRequest").with_code(StatusCode::BAD_REQUEST.as_u16());
    let mut response = ConversionResponse::invalid(status);
    response.uid = uid;
    let review = ConversionReview {
        types: kube::core::TypeMeta {
            api_version: "apiextensions.k8s.io/v1".into(),
            kind: "ConversionReview".into(),
        },
        request: None,
        response: Some(response),
    };
    Converted {
        // A review without objects always has a JSON form.
        review: serde_json::to_value(review).unwrap_or_default(),
        outcome: "failed",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(body: &Value) -> Converted {
        answer(body.to_string().as_bytes()).unwrap()
    }

    fn review(api_version: &str, objects: &Value) -> Value {
        json!({"apiVersion": api_version, "kind": "ConversionReview", "request": {
            "uid": "u-1", "desiredAPIVersion": "split.smi-spec.io/v1alpha4", "objects": objects,
        }})
    }

    #[test]
    fn whoever_can_be_answered_is_answered() {
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
            let converted = answered(&body);
            let response = &converted.review["response"];
            assert_eq!(response["uid"], "u-1");
            assert_eq!(response["result"]["status"], "Failure");
            let message = response["result"]["message"].as_str().unwrap();
            assert!(message.contains(word), "{message}");
            assert_eq!(converted.reason, reason);
            assert_eq!(converted.review["kind"], "ConversionReview");
            assert_eq!(converted.review["apiVersion"], "apiextensions.k8s.io/v1");
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
        let objects = &converted.review["response"]["convertedObjects"];
        assert_eq!(objects[1]["metadata"]["name"], "good");
        assert_eq!(objects[1]["spec"]["matches"][0]["headers"]["a"], "b");
        // Still nothing that could be taken for a header.
        assert!(objects[0]["spec"]["matches"][0]["headers"]["a"].is_object());
    }

    #[test]
    fn what_is_no_review_has_no_answer() {
        for body in ["", "{", "null", "[]", "{}", r#"{"request":{}}"#] {
            assert!(answer(body.as_bytes()).is_err(), "{body}");
        }
    }
}
