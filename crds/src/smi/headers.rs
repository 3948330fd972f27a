//! Parses the `headers` of an HTTP match in either of its two forms.

use serde_json::Value;

/// Most headers one match may name; more is surely a mistake and costs every request.
const MAX_HEADERS: usize = 32;

/// Why `headers` cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHeaders {
    /// Neither a map nor a list of maps.
    #[error("must be a map of header names to regular expressions, or a list of such maps")]
    Shape,
    /// One header's value is not a string.
    #[error("the value of {name:?} must be a string")]
    Value {
        /// The header's name as it was written.
        name: String,
    },
    /// A list entry holds several headers, so their order would be invented.
    #[error("entry {index} must hold exactly one header")]
    Entry {
        /// Position in the list, from 0.
        index: usize,
    },
    /// More headers than one match may name.
    #[error("names more than {MAX_HEADERS} headers")]
    TooMany,
}

/// Header names with their regular expressions, in the order they were written
/// (a map has no order and comes sorted by name).
pub(crate) fn parse_headers(headers: Option<&Value>) -> Result<Vec<(String, String)>, BadHeaders> {
    let mut parsed = Vec::new();
    match headers {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            if map.len() > MAX_HEADERS {
                return Err(BadHeaders::TooMany);
            }
            for (name, value) in map {
                parsed.push(pair(name, value)?);
            }
        }
        Some(Value::Array(list)) => {
            if list.len() > MAX_HEADERS {
                return Err(BadHeaders::TooMany);
            }
            for (index, entry) in list.iter().enumerate() {
                let entry = entry.as_object().ok_or(BadHeaders::Shape)?;
                let mut headers = entry.iter();
                match (headers.next(), headers.next()) {
                    (Some((name, value)), None) => parsed.push(pair(name, value)?),
                    _ => return Err(BadHeaders::Entry { index }),
                }
            }
        }
        Some(_) => return Err(BadHeaders::Shape),
    }
    Ok(parsed)
}

fn pair(name: &str, value: &Value) -> Result<(String, String), BadHeaders> {
    match value {
        Value::String(value) => Ok((name.to_owned(), value.clone())),
        _ => Err(BadHeaders::Value {
            name: name.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn header_map_equals_list_of_single_entry_maps() {
        let map = json!({"user-agent": ".*Android.*", "x-a": "1"});
        let list = json!([{"user-agent": ".*Android.*"}, {"x-a": "1"}]);
        assert_eq!(parse_headers(Some(&map)), parse_headers(Some(&list)));
        assert_eq!(parse_headers(Some(&map)).unwrap().len(), 2);
        assert_eq!(parse_headers(None), Ok(vec![]));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        assert_eq!(parse_headers(Some(&json!("x: 1"))), Err(BadHeaders::Shape));
        assert_eq!(parse_headers(Some(&json!(["x"]))), Err(BadHeaders::Shape));
        assert_eq!(
            parse_headers(Some(&json!([{"a": "1", "b": "2"}]))),
            Err(BadHeaders::Entry { index: 0 })
        );
        assert_eq!(
            parse_headers(Some(&json!([{}]))),
            Err(BadHeaders::Entry { index: 0 })
        );
        assert_eq!(
            parse_headers(Some(&json!({"a": 1}))),
            Err(BadHeaders::Value { name: "a".into() })
        );
    }
}
