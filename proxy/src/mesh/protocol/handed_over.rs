//! The headers by which a caller's proxy hands a call over to an egress Gateway: for which
//! ExternalService it is to leave the mesh, and to which host or address.
//!
//! All of it is what the caller's proxy says. The Gateway has the object itself, and knows the caller
//! by its certificate.

use std::sync::Arc;

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};

use crate::http::header_names::{EXTERNAL, EXTERNAL_TO};

const NOT_READ: &str = "weft-external names an object, and weft-external-to a host or an address";

/// A call that is to leave the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// `namespace/name` of the ExternalService.
    pub object: Arc<str>,
    /// The host to one of whose addresses it goes, or the address.
    pub to: Arc<str>,
}

impl HandedOver {
    /// # Errors
    /// When a header cannot hold it.
    pub(crate) fn write(&self, map: &mut HeaderMap) -> Result<(), &'static str> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| NOT_READ);
        map.insert(EXTERNAL, value(&self.object)?);
        map.insert(EXTERNAL_TO, value(&self.to)?);
        Ok(())
    }

    /// What a head says of it; `None` where it says nothing.
    ///
    /// # Errors
    /// When it says it twice, or half of it.
    pub(crate) fn read(map: &HeaderMap) -> Result<Option<Self>, &'static str> {
        match (only(map, &EXTERNAL)?, only(map, &EXTERNAL_TO)?) {
            (None, None) => Ok(None),
            (Some(object), Some(to)) => Ok(Some(Self { object, to })),
            _ => Err(NOT_READ),
        }
    }
}

/// The value of a header that must not be there twice.
fn only(map: &HeaderMap, name: &HeaderName) -> Result<Option<Arc<str>>, &'static str> {
    let mut values = map.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(NOT_READ);
    }
    let text = value.to_str().map_err(|_| NOT_READ)?;
    Ok(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn handed_over_call_is_read_as_written() {
        let written = HandedOver {
            object: "shop/pay".into(),
            to: "api.pay.example".into(),
        };
        let mut headers = map(&[("weft-external", "other/object")]);
        written.write(&mut headers).unwrap();
        assert_eq!(HandedOver::read(&headers), Ok(Some(written)));
        assert_eq!(HandedOver::read(&map(&[])), Ok(None));
    }

    #[test]
    fn half_or_double_statement_is_malformed() {
        const OBJECT: (&str, &str) = ("weft-external", "shop/pay");
        const TO: (&str, &str) = ("weft-external-to", "api.pay.example");
        for wrong in [
            &[OBJECT][..],
            &[TO],
            &[OBJECT, TO, TO],
            &[OBJECT, OBJECT, TO],
        ] {
            let read = HandedOver::read(&map(wrong));
            assert_eq!(read, Err(NOT_READ), "{wrong:?}");
        }
    }
}
