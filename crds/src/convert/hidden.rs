//! Parts of a stored object that an older version cannot show.
//!
//! As long as the visible part is what was shown, they return to exactly where they
//! were. After an edit through the old version they follow what they belong to, by
//! name: dropping them would widen what the object allows. Either way the result is
//! converted once more, and if it would not show what the author wrote, the hidden
//! parts do not count.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Content, ConversionError, SmiKind, SmiVersion, annotation::hash, shape};

/// What identifies an entry of a list to its author.
const IDENTITY: &[&str] = &["kind", "name", "namespace"];

/// Hidden parts, bound to the version and the text that they were hidden from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hidden {
    /// The version that cannot show them.
    from: SmiVersion,
    /// Hash of what that version showed.
    seen: String,
    /// The parts, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<Piece>,
    /// The whole stored object, where pieces cannot tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<Content>,
    /// The parts had no room in an annotation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    too_large: bool,
    /// Hash of all the rest.
    sum: String,
}

/// Fields that were cut out of one object inside `spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    /// JSON pointer of that object in storage.
    at: String,
    /// Its kind, name and namespace.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    of: Map<String, Value>,
    /// Hash of the other visible fields of an HTTP match, by which it is known after a
    /// change of its name. Other entries are nothing but their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    like: Option<String>,
    /// The fields.
    keep: Map<String, Value>,
}

impl Piece {
    /// Cuts `fields` out of `object`; none if it has none of them.
    pub(super) fn cut(at: &str, object: &mut Map<String, Value>, fields: &[&str]) -> Option<Self> {
        let keep: Map<String, Value> = fields
            .iter()
            .filter_map(|field| object.remove_entry(*field))
            .collect();
        (!keep.is_empty()).then(|| Self {
            at: at.to_owned(),
            of: identity(object),
            like: keep.contains_key("headers").then(|| likeness(object)),
            keep,
        })
    }

    /// Adds the fields to `object`, which keeps its own.
    fn add_to(&self, object: &mut Map<String, Value>) {
        for (field, value) in &self.keep {
            // An API group means nothing beside another kind.
            if field == "group" && object.get("kind") != self.of.get("kind") {
                continue;
            }
            object
                .entry(field.as_str())
                .or_insert_with(|| value.clone());
        }
    }
}

fn identity(object: &Map<String, Value>) -> Map<String, Value> {
    let fields = object
        .iter()
        .filter(|(key, _)| IDENTITY.contains(&key.as_str()));
    fields.map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn likeness(object: &Map<String, Value>) -> String {
    let rest: Map<String, Value> = object
        .iter()
        .filter(|(key, _)| *key != "name")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    hash("like", &rest)
}

impl Hidden {
    fn sealed(mut self, kind: SmiKind) -> Self {
        self.sum = String::new();
        self.sum = hash(kind.name(), &self);
        self
    }

    /// Whether nobody changed it since it was made for an object of this kind.
    pub(super) fn is_untouched(&self, kind: SmiKind) -> bool {
        self.clone().sealed(kind).sum == self.sum
    }
}

/// What has to be hidden so that `stored` can be told from `visible`; none when
/// `visible` says it all and it is not to be wrapped anyway.
pub(super) fn hide(
    kind: SmiKind,
    version: SmiVersion,
    visible: &Content,
    pieces: Vec<Piece>,
    stored: &Content,
    wrap: bool,
) -> Option<Hidden> {
    let base = shape::to_storage(kind, version, visible);
    let told = in_place(base, &pieces).as_ref() == Some(stored);
    if told && pieces.is_empty() && !wrap {
        return None;
    }
    let hidden = Hidden {
        from: version,
        seen: hash(version.name(), visible),
        pieces,
        whole: (!told).then(|| stored.clone()),
        too_large: false,
        sum: String::new(),
    };
    Some(hidden.sealed(kind))
}

/// Stands for hidden parts that have no room.
pub(super) fn too_large(kind: SmiKind, version: SmiVersion, visible: &Content) -> Hidden {
    let hidden = Hidden {
        from: version,
        seen: hash(version.name(), visible),
        pieces: Vec::new(),
        whole: None,
        too_large: true,
        sum: String::new(),
    };
    hidden.sealed(kind)
}

/// The stored form of `visible` together with what was hidden from its author.
pub(super) fn restore(
    kind: SmiKind,
    version: SmiVersion,
    visible: &Content,
    hidden: &Hidden,
) -> Result<Content, ConversionError> {
    if hidden.too_large {
        return Err(ConversionError::TooLarge { version });
    }
    let shows = |stored: &Content| shape::to_version(kind, version, stored).content;
    let unchanged = hidden.from == version && hidden.seen == hash(version.name(), visible);

    let base = shape::to_storage(kind, version, visible);
    // Ports are all that a TCPRoute hides, and no edit of the visible part, which is
    // empty, can have been about them.
    if let Some(whole) = &hidden.whole
        && (unchanged || kind == SmiKind::TcpRoute)
    {
        let shown = shows(whole);
        if shown == *visible || shown == shows(&base) {
            return Ok(whole.clone());
        }
    }
    let plain = shows(&base);
    let exact = if unchanged {
        in_place(base.clone(), &hidden.pieces)
    } else {
        None
    };
    let restored = exact.unwrap_or_else(|| by_name(base.clone(), &hidden.pieces));
    Ok(if shows(&restored) == plain {
        restored
    } else {
        base
    })
}

/// Every piece back at its place; none if a place is gone.
fn in_place(content: Content, pieces: &[Piece]) -> Option<Content> {
    let mut content = Value::Object(content);
    for piece in pieces {
        let object = content.pointer_mut(&piece.at)?.as_object_mut()?;
        piece.add_to(object);
    }
    match content {
        Value::Object(content) => Some(content),
        _ => None,
    }
}

/// Every piece at what it belongs to now; pieces of what is gone are gone.
fn by_name(content: Content, pieces: &[Piece]) -> Content {
    let mut content = Value::Object(content);
    let mut taken: Vec<String> = Vec::new();
    for piece in pieces {
        let at = match piece.at.rsplit_once('/') {
            Some((list, index)) if index.parse::<usize>().is_ok() => {
                let free = |at: &String| !taken.contains(at);
                find(&content, piece, list, index, free)
            }
            _ => Some(piece.at.clone()),
        };
        let Some(at) = at else { continue };
        if let Some(object) = content.pointer_mut(&at).and_then(Value::as_object_mut) {
            piece.add_to(object);
            taken.push(at);
        }
    }
    match content {
        Value::Object(content) => content,
        _ => Map::new(),
    }
}

/// Where the entry is that a piece belongs to: of the same name, best at the same
/// position, else of the same content under a new name.
fn find(
    content: &Value,
    piece: &Piece,
    list: &str,
    index: &str,
    free: impl Fn(&String) -> bool,
) -> Option<String> {
    let entries = content.pointer(list)?.as_array()?;
    let places: Vec<(String, &Map<String, Value>)> = entries
        .iter()
        .enumerate()
        .filter_map(|(i, entry)| Some((format!("{list}/{i}"), entry.as_object()?)))
        .filter(|(at, _)| free(at))
        .collect();
    let same_name = |entry: &Map<String, Value>| identity(entry) == piece.of;
    let here = format!("{list}/{index}");
    places
        .iter()
        .find(|(at, entry)| *at == here && same_name(entry))
        .or_else(|| places.iter().find(|(_, entry)| same_name(entry)))
        .or_else(|| {
            places
                .iter()
                .find(|(_, entry)| piece.like == Some(likeness(entry)))
        })
        .map(|(at, _)| at.clone())
}
