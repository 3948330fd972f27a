//! Deserializes JSON of any nesting, truncated to a bounded depth.
//!
//! Any author of an object decides how deep it is nested: its unknown fields, its `headers`, and
//! even `metadata.managedFields`. A parser that refuses deep nesting refuses the whole list that
//! the object is in, so one object of one tenant would hide all the others; a recursive parser
//! needs a stack as deep. This one replaces the parts that are too deep by a text. The mesh
//! understands nothing at that depth, and a text in the place of an object is a validation error,
//! so it never allows anything.
//!
//! Claims: smi-13

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Levels of nesting that are read. SMI objects use 6, pods about 16; the reader of a
/// list or review around them may take 128 in all.
const LEVELS: usize = 64;

/// What stands in the place of what is nested deeper.
pub(crate) const TOO_DEEP: &str = "(nested too deep to be read)";

/// JSON with at most 64 levels; what was deeper is the text [`TOO_DEEP`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DepthLimitedValue(pub Value);

impl<'de> Deserialize<'de> for DepthLimitedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let level = Level(LEVELS, Position::Anywhere);
        level.deserialize(deserializer).map(Self)
    }
}

/// The same of a Kubernetes object without `metadata.managedFields`, and of `status` with `phase`
/// alone: they may be the largest part of it, and no author wrote them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authored(pub Value);

impl<'de> Deserialize<'de> for Authored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let level = Level(LEVELS, Position::Object);
        level.deserialize(deserializer).map(Self)
    }
}

/// Reads one value, inside which so many levels may follow.
#[derive(Clone, Copy)]
struct Level(usize, Position);

/// What the value is, as far as it decides what is passed over.
#[derive(Clone, Copy)]
enum Position {
    Object,
    Metadata,
    Status,
    Anywhere,
}

impl Level {
    fn below(self) -> Option<Self> {
        Some(Self(self.0.checked_sub(1)?, Position::Anywhere))
    }
}

impl Position {
    /// What a field of it is; `None` if it is passed over.
    fn field(self, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::Metadata, "managedFields") => None,
            (Self::Object, "metadata") => Some(Self::Metadata),
            (Self::Object, "status") => Some(Self::Status),
            (Self::Status, name) if name != "phase" => None,
            _ => Some(Self::Anywhere),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        let Some(below) = self.below() else {
            // Passed over without a stack: serde_json counts brackets here.
            while entries.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(TOO_DEEP.into());
        };
        while let Some(entry) = entries.next_element_seed(below)? {
            read.push(entry);
        }
        Ok(read.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        let Some(below) = self.below() else {
            while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(TOO_DEEP.into());
        };
        while let Some(name) = fields.next_key::<String>()? {
            match self.1.field(&name) {
                Some(position) => {
                    read.insert(name, fields.next_value_seed(Self(below.0, position))?);
                }
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(read.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn levels(value: &Value) -> usize {
        match value {
            Value::Array(entries) => 1 + entries.iter().map(levels).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
            _ => 0,
        }
    }

    #[test]
    fn what_is_not_deep_is_read_as_it_is() {
        let whole = json!({"a": [1, -2, 3.5, "x", true, null, {"b": {}}], "u": u64::MAX});
        let read: DepthLimitedValue = serde_json::from_str(&whole.to_string()).unwrap();
        assert_eq!(read.0, whole);
        let deepest = (0..LEVELS).fold(json!("x"), |inner, _| json!({"a": inner}));
        let read: DepthLimitedValue = serde_json::from_str(&deepest.to_string()).unwrap();
        assert_eq!(read.0, deepest);
        assert!(serde_json::from_str::<DepthLimitedValue>("{").is_err());
        assert!(serde_json::from_str::<DepthLimitedValue>("[1,]").is_err());
    }

    #[test]
    fn authored_view_skips_managed_fields_and_status_but_phase() {
        let inner = json!({"status": 1, "managedFields": [2], "metadata": {"managedFields": 3}});
        let object = json!({
            "status": {"phase": "Running", "conditions": [{"phase": 1}]},
            "metadata": {"managedFields": [{"f:a": {}}], "labels": {"a": "b"}, "status": 4},
            "spec": inner, "managedFields": 5,
        });
        let mut kept = object.clone();
        kept["status"].as_object_mut().unwrap().remove("conditions");
        kept["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        let read: Authored = serde_json::from_str(&object.to_string()).unwrap();
        assert_eq!(read.0, kept);
        let list: Authored = serde_json::from_str("[{\"status\": 1}]").unwrap();
        assert_eq!(list.0, json!([{"status": 1}]));
    }

    #[test]
    fn endless_nesting_becomes_text_and_neighbours_stay() {
        // As many levels as fit into one object of etcd, and far more than Go's reader
        // takes, on a stack of 256 KiB.
        let deep = |open: &str, close: &str| {
            let levels = 1_500_000 / (open.len() + close.len());
            format!("{}1{}", open.repeat(levels), close.repeat(levels))
        };
        let text = format!(
            r#"{{"map": {}, "list": {}, "after": "seen"}}"#,
            deep(r#"{"a":"#, "}"),
            deep("[", "]")
        );
        let reader = std::thread::Builder::new().stack_size(256 * 1024);
        let read = reader
            .spawn(move || serde_json::from_str::<DepthLimitedValue>(&text).unwrap().0)
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(read["after"], "seen");
        assert_eq!(levels(&read), LEVELS);
        assert!(read.to_string().contains(TOO_DEEP));
    }
}
