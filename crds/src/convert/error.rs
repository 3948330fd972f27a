//! Why an object cannot be converted.

use crate::smi::SmiVersion;

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
