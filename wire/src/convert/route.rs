//! Splits: which share of a Service's traffic goes where.

use std::sync::Arc;

use policy::name::ServiceId;
use policy::split::{Backend, Split};

use super::error::BadResource;
use super::http_match::matches;
use super::object::origin;
use crate::v1;

impl TryFrom<&v1::Split> for Split {
    type Error = BadResource;

    fn try_from(message: &v1::Split) -> Result<Self, BadResource> {
        let origin = origin(message.origin.as_ref())?;
        let backends = message
            .backends
            .iter()
            .map(|backend| Backend {
                service: ServiceId::new(Arc::clone(&origin.namespace), backend.service.as_str()),
                weight: backend.weight,
                endpoints: backend.endpoints.as_str().into(),
            })
            .collect();
        let matches = matches(message.matches.as_ref(), "matches")?;
        Ok(Self {
            origin,
            matches,
            backends,
        })
    }
}

/// Backends stand in the split's own namespace, so only their names are sent.
impl From<&Split> for v1::Split {
    fn from(split: &Split) -> Self {
        Self {
            origin: Some((&split.origin).into()),
            matches: split.matches.as_deref().map(v1::HttpMatches::from),
            backends: split
                .backends
                .iter()
                .map(|backend| v1::Backend {
                    service: backend.service.name.to_string(),
                    weight: backend.weight,
                    endpoints: backend.endpoints.to_string(),
                })
                .collect(),
        }
    }
}
