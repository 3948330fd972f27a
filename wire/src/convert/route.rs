//! Splits: which share of a Service's traffic goes where.

use std::sync::Arc;

use policy::name::ServiceId;
use policy::route::{Backend, Match, Rule};

use super::error::BadResource;
use super::http_match::matches;
use super::object::origin;
use crate::v1;

impl TryFrom<&v1::Split> for Rule<Vec<Backend>> {
    type Error = BadResource;

    fn try_from(message: &v1::Split) -> Result<Self, BadResource> {
        let origin = origin(message.origin.as_ref())?;
        let when = match matches(message.matches.as_ref(), "matches")? {
            Some(matches) => Match::AnyOf(matches),
            None => Match::Always,
        };
        let backends = message.backends.iter().map(|backend| {
            // Backends stand in the split's own namespace, so only their names are sent.
            let service = ServiceId::new(Arc::clone(origin.namespace()), backend.service.as_str());
            Backend::new(service, backend.weight, backend.endpoints.as_str())
        });
        Ok(Self {
            then: backends.collect(),
            origin,
            when,
        })
    }
}

impl From<&Rule<Vec<Backend>>> for v1::Split {
    fn from(split: &Rule<Vec<Backend>>) -> Self {
        Self {
            origin: Some((&split.origin).into()),
            matches: match &split.when {
                Match::Always => None,
                Match::AnyOf(matches) => Some(v1::HttpMatches::from(&**matches)),
            },
            backends: split
                .then
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
