//! The object that something is made from.

use policy::name::ObjectRef;

use super::error::BadResource;
use crate::v1;

pub(super) fn origin(message: Option<&v1::ObjectRef>) -> Result<ObjectRef, BadResource> {
    let message = message.ok_or_else(|| BadResource::new("origin", "is missing"))?;
    ObjectRef::try_from(message).map_err(|bad| bad.within("origin"))
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
