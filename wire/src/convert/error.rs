//! The error of a resource that cannot be used, with the path of the wrong field.

use std::fmt;

/// Why a resource cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BadResource {
    /// Name of the resource, where the caller knew it.
    pub name: Option<String>,
    /// Path of the field inside the message, such as `http.matches[1].pathRegex`.
    pub field: String,
    pub reason: String,
    /// It holds something that this version does not know, rather than something wrong.
    /// A rule of a policy with such a value is skipped; anything else refuses both alike.
    pub unknown: bool,
}

impl fmt::Display for BadResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl BadResource {
    pub fn new(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            name: None,
            field: field.into(),
            reason: reason.to_string(),
            unknown: false,
        }
    }

    /// Something that this version does not know.
    pub fn unknown(field: impl Into<String>) -> Self {
        Self {
            unknown: true,
            ..Self::new(field, "is of a kind that this version does not know")
        }
    }

    /// Adds which resource it was.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// Adds in which part of the message the field stands.
    pub(super) fn within(self, parent: impl fmt::Display) -> Self {
        Self {
            field: format!("{parent}.{}", self.field),
            ..self
        }
    }
}

/// Converts each element and names the one that is wrong.
pub(super) fn each<'a, T, U>(field: &str, all: &'a [T]) -> Result<Vec<U>, BadResource>
where
    U: TryFrom<&'a T, Error = BadResource>,
{
    all.iter()
        .enumerate()
        .map(|(index, one)| {
            U::try_from(one).map_err(|bad| bad.within(format_args!("{field}[{index}]")))
        })
        .collect()
}
