//! Converts references to Kubernetes objects.

use policy::name::ObjectRef;
use policy::origin::Origin;

use super::error::BadResource;
use crate::v1;

pub(super) fn origin(message: Option<&v1::ObjectRef>) -> Result<Origin, BadResource> {
    let message = message.ok_or_else(|| BadResource::new("origin", "is missing"))?;
    for (field, text) in [("kind", &message.kind), ("name", &message.name)] {
        if text.is_empty() {
            return Err(BadResource::new(field, "is missing").within("origin"));
        }
    }
    Ok(Origin::from(message))
}

/// Any kind will do: an origin is only shown, and the text is enough.
impl From<&v1::ObjectRef> for Origin {
    fn from(message: &v1::ObjectRef) -> Self {
        Self::new(
            &message.kind,
            message.namespace.as_str(),
            message.name.as_str(),
        )
    }
}

impl From<&Origin> for v1::ObjectRef {
    fn from(origin: &Origin) -> Self {
        Self {
            kind: origin.kind().to_owned(),
            namespace: origin.namespace().to_string(),
            name: origin.name().to_string(),
        }
    }
}

impl TryFrom<&v1::ObjectRef> for ObjectRef {
    type Error = BadResource;

    fn try_from(message: &v1::ObjectRef) -> Result<Self, BadResource> {
        let kind = message
            .kind
            .parse()
            .map_err(|bad| BadResource::new("kind", bad))?;
        Ok(Self::new(
            kind,
            message.namespace.as_str(),
            message.name.as_str(),
        ))
    }
}

impl From<&ObjectRef> for v1::ObjectRef {
    fn from(object: &ObjectRef) -> Self {
        Self {
            kind: object.kind.as_str().to_owned(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
        }
    }
}
