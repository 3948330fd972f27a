//! Keeps the parts of a stored object that an older version cannot show, in an annotation.
//!
//! As long as the visible part is unchanged, they return to exactly their place. After an edit
//! through the old version they follow the items that they belong to, by name: dropping them would
//! widen what the object allows. Either way the result is converted once more, and if it would not
//! show what the author wrote, the hidden parts are ignored.

use serde::{Deserialize, Serialize};

use super::fragment::{Content, Fragment, by_name, hash, in_place};
use super::shape;
use crate::smi::{SmiKind, SmiVersion};

/// Hidden parts, bound to the version and the text that they were hidden from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hidden {
    /// The version that cannot show them.
    from: SmiVersion,
    /// Hash of what that version showed.
    seen: String,
    /// The parts, each with its place.
    #[serde(default, rename = "pieces", skip_serializing_if = "Vec::is_empty")]
    fragments: Vec<Fragment>,
    /// The whole stored object, where fragments cannot tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<Content>,
    /// The parts had no room in an annotation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    too_large: bool,
    /// Hash of all the rest.
    sum: String,
}

impl Hidden {
    fn sealed(mut self, kind: SmiKind) -> Self {
        self.sum = String::new();
        self.sum = hash(kind.name(), &self);
        self
    }

    /// Whether no client changed it since it was made for an object of this kind.
    pub(super) fn is_untouched(&self, kind: SmiKind) -> bool {
        self.clone().sealed(kind).sum == self.sum
    }
}

/// What has to be hidden so that `stored` can be restored from `visible`; none when
/// `visible` holds everything and is not to be wrapped anyway.
pub(super) fn hide(
    kind: SmiKind,
    version: SmiVersion,
    visible: &Content,
    fragments: Vec<Fragment>,
    stored: &Content,
    wrap: bool,
) -> Option<Hidden> {
    let base = shape::to_storage(kind, version, visible);
    let complete = in_place(base, &fragments).as_ref() == Some(stored);
    if complete && fragments.is_empty() && !wrap {
        return None;
    }
    let hidden = Hidden {
        from: version,
        seen: hash(version.name(), visible),
        fragments,
        whole: (!complete).then(|| stored.clone()),
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
        fragments: Vec::new(),
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
        in_place(base.clone(), &hidden.fragments)
    } else {
        None
    };
    let restored = exact.unwrap_or_else(|| by_name(base.clone(), &hidden.fragments));
    Ok(if shows(&restored) == plain {
        restored
    } else {
        base
    })
}

/// Why an object cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Not a JSON object, or its metadata is not one.
    #[error("{field} must be a JSON object")]
    NotAnObject {
        /// Where.
        field: &'static str,
    },
    /// The object's kind is none of SMI's, or not served in its version.
    #[error("{kind} of {api_version} is not served")]
    UnknownKind {
        /// `apiVersion` of the object.
        api_version: String,
        /// `kind` of the object.
        kind: String,
    },
    /// The wanted version is not one of the kind's.
    #[error("{kind} has no version {wanted}")]
    UnknownVersion {
        /// `kind` of the object.
        kind: String,
        /// The wanted `apiVersion`.
        wanted: String,
    },
    /// The annotation that carries hidden parts was changed, so what they were is not
    /// known. Without them the object could allow more. Only a write through an older
    /// version can meet this.
    #[error(
        "annotation weft.dev/smi-lossless, which carries what {version} cannot show, was changed; \
         change this object in v1alpha4, or remove the annotation to give those parts up"
    )]
    Tampered {
        /// The version it was written in.
        version: SmiVersion,
    },
    /// What the version cannot show is larger than an annotation may be. Only a
    /// write through an older version can meet this; reading works.
    #[error(
        "this object holds more than {version} can show and an annotation can carry; change it \
         in v1alpha4"
    )]
    TooLarge {
        /// The version it was written in.
        version: SmiVersion,
    },
}
