//! Answers the API server's ConversionReview.

use kube::core::{
    Status,
    conversion::{ConversionResponse, ConversionReview},
};
use serde_json::Value;

use super::convert;

/// The review with its answer: every object converted, in the order of the request,
/// or the first failure with the object's name and none converted.
pub fn review(mut review: ConversionReview) -> ConversionReview {
    let Some(request) = review.request.take() else {
        let status = Status::failure("the ConversionReview holds no request", "BadRequest");
        let response = ConversionResponse::invalid(status);
        return answer(review, response);
    };
    let converted: Result<Vec<Value>, String> = request
        .objects
        .iter()
        .map(|object| one(object, &request.desired_api_version))
        .collect();
    let response = ConversionResponse::for_request(request);
    let response = match converted {
        Ok(objects) => response.success(objects),
        Err(message) => response.failure(Status::failure(&message, "ConversionFailed")),
    };
    answer(review, response)
}

/// One object of a review in another version, or why not, with the object's name.
///
/// # Errors
/// As [`convert`], with the object's kind and name before it.
pub fn one(object: &Value, to: &str) -> Result<Value, String> {
    convert(object, to).map_err(|error| format!("{}: {error}", name(object)))
}

fn answer(mut review: ConversionReview, response: ConversionResponse) -> ConversionReview {
    review.response = Some(response);
    review
}

fn name(object: &Value) -> String {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or("?").to_owned()
    };
    format!(
        "{} {}/{}",
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}
