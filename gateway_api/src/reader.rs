//! Reads the fields of an object's JSON, each with its path, and reports the first that is wrong.
//!
//! Reading is strict where leaving something out could widen what a part means: a field that is
//! not known makes its part unusable. The API server keeps such fields only if the kinds that are
//! installed are newer than this program.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Characters of a value that a message shows.
const SHOWN: usize = 60;

/// Why a part of an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Broken {
    /// Path of the field, such as `spec.rules[1].filters[0]`.
    pub path: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

/// One value, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) path: String,
    value: &'a Value,
}

/// A value that holds fields.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    pub(crate) path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Field<'a> {
    pub(crate) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self {
            path: path.into(),
            value,
        }
    }

    pub(crate) fn broken(&self, message: impl Into<String>) -> Broken {
        broken(&self.path, message)
    }

    pub(crate) fn text(&self) -> Result<&'a str, Broken> {
        self.value
            .as_str()
            .ok_or_else(|| self.broken("must be text"))
    }

    /// A text that is not empty.
    pub(crate) fn word(&self) -> Result<&'a str, Broken> {
        match self.text()? {
            "" => Err(self.broken("must not be empty")),
            word => Ok(word),
        }
    }

    /// A whole number in this range.
    pub(crate) fn number<N>(&self, range: &RangeInclusive<N>) -> Result<N, Broken>
    where
        N: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let read = self.value.as_i64().and_then(|raw| N::try_from(raw).ok());
        read.filter(|read| range.contains(read)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.broken(format!("must be a whole number from {least} to {most}"))
        })
    }

    pub(crate) fn flag(&self) -> Result<bool, Broken> {
        self.value
            .as_bool()
            .ok_or_else(|| self.broken("must be true or false"))
    }

    pub(crate) fn list(&self) -> Result<Vec<Self>, Broken> {
        let list = self.value.as_array();
        let list = list.ok_or_else(|| self.broken("must be a list"))?;
        let entries = list.iter().enumerate();
        let entries = entries.map(|(i, entry)| Self::new(format!("{}[{i}]", self.path), entry));
        Ok(entries.collect())
    }

    pub(crate) fn object(&self) -> Result<Object<'a>, Broken> {
        let map = self.value.as_object();
        let map = map.ok_or_else(|| self.broken("must hold fields"))?;
        Ok(Object {
            path: self.path.clone(),
            map,
        })
    }

    /// What stands beside this text in a list of all that it may be.
    pub(crate) fn one_of<T: Copy>(&self, known: &[(&str, T)]) -> Result<T, Broken> {
        let text = self.text()?;
        let found = known.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let (shown, names) = (shown(text), names.join(", "));
            self.broken(format!("is {shown:?}, but Weft carries out {names} only"))
        })
    }
}

impl<'a> Object<'a> {
    pub(crate) fn broken(&self, message: impl Into<String>) -> Broken {
        broken(&self.path, message)
    }

    /// A field, if it is there.
    pub(crate) fn field(&self, name: &str) -> Option<Field<'a>> {
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Field::new(format!("{}.{name}", self.path), value))
    }

    /// All fields that have a value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        let path = self.path.clone();
        let set = self.map.iter().filter(|(_, value)| !value.is_null());
        set.map(move |(name, value)| {
            let path = format!("{path}.{}", shown(name));
            (name.as_str(), Field::new(path, value))
        })
    }

    /// Texts by name, none where the field is left out.
    pub(crate) fn texts(&self, name: &str) -> Result<BTreeMap<String, String>, Broken> {
        let map = self.read(name, Field::object)?;
        let mut texts = BTreeMap::new();
        for (key, value) in map.iter().flat_map(Object::fields) {
            texts.insert(key.to_owned(), value.text()?.to_owned());
        }
        Ok(texts)
    }

    /// A field that must be there.
    pub(crate) fn need(&self, name: &str) -> Result<Field<'a>, Broken> {
        let missing = || broken(&format!("{}.{name}", self.path), "is missing");
        self.field(name).ok_or_else(missing)
    }

    /// The entries of a list, none where it is left out.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<Field<'a>>, Broken> {
        self.field(name).map_or(Ok(Vec::new()), |list| list.list())
    }

    /// What is read of a field, `None` where it is left out.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, Broken>,
    ) -> Result<Option<T>, Broken> {
        self.field(name).map(|field| read(&field)).transpose()
    }

    /// A text, `None` where it is left out or empty.
    pub(crate) fn filled(&self, name: &str) -> Result<Option<&'a str>, Broken> {
        let text = self.read(name, Field::text)?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Checks that there are no other fields than these.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Broken> {
        let mut set = self.map.iter().filter(|(_, value)| !value.is_null());
        match set.find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                let path = format!("{}.{}", self.path, shown(name));
                Err(broken(
                    &path,
                    "is a field that Weft does not carry out; leave it out",
                ))
            }
        }
    }
}

/// So much of a text as a message shows.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn broken(path: &str, message: impl Into<String>) -> Broken {
    Broken {
        path: path.to_owned(),
        message: message.into(),
    }
}
