//! The filters that edit headers of requests or of their answers.

use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use policy::route::edits::HeaderEdits;

use crate::reader::{Broken, Field, Object};

/// What the mesh's own headers begin with.
const OURS: &str = "weft-";

/// Headers of one connection, which mean nothing behind it.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads the edits. Of several entries of one list about one header the first counts; two lists
/// must not name the same.
pub(super) fn edits(content: &Object<'_>) -> Result<HeaderEdits, Broken> {
    content.only(&["set", "add", "remove"])?;
    let mut taken = Vec::new();
    let set = entries(content, "set", &mut taken, with_value)?;
    let add = entries(content, "add", &mut taken, with_value)?;
    let remove = entries(content, "remove", &mut taken, |field| {
        Ok((name(field)?, ()))
    })?;
    Ok(HeaderEdits {
        set,
        add,
        remove: remove.into_iter().map(|(name, ())| name).collect(),
    })
}

/// The entries of one list, by header. `taken` are the headers of the lists before.
fn entries<V>(
    content: &Object<'_>,
    list: &str,
    taken: &mut Vec<HeaderName>,
    read: impl Fn(&Field<'_>) -> Result<(HeaderName, V), Broken>,
) -> Result<Vec<(HeaderName, V)>, Broken> {
    let mut entries: Vec<(HeaderName, V)> = Vec::new();
    for field in content.list(list)? {
        let (name, value) = read(&field)?;
        if taken.contains(&name) {
            let text = format!("names {name}, as another list does; leave one of them out");
            return Err(field.broken(text));
        }
        if entries.iter().all(|(known, _)| *known != name) {
            entries.push((name, value));
        }
    }
    taken.extend(entries.iter().map(|(name, _)| name.clone()));
    Ok(entries)
}

fn with_value(field: &Field<'_>) -> Result<(HeaderName, HeaderValue), Broken> {
    let entry = field.object()?;
    entry.only(&["name", "value"])?;
    let name = name(&entry.need("name")?)?;
    let value = entry.need("value")?;
    let read = HeaderValue::from_str(value.text()?);
    let read = read.map_err(|_| value.broken("must consist of printable ASCII characters"))?;
    Ok((name, read))
}

/// A header that may be edited.
fn name(field: &Field<'_>) -> Result<HeaderName, Broken> {
    let name = HeaderName::from_bytes(field.text()?.as_bytes());
    let name = name.map_err(|_| field.broken("must be the name of a header"))?;
    let why = if name.as_str().starts_with(OURS) {
        "is a header of the mesh, which no route may edit"
    } else if HOP_BY_HOP.contains(&name.as_str()) {
        "is a header of one connection, which no route may edit"
    } else if name == CONTENT_LENGTH {
        "says where the message ends, which no route may edit"
    } else if name == HOST {
        "is edited by URLRewrite with a hostname, and not as a header"
    } else {
        return Ok(name);
    };
    Err(field.broken(format!("{name} {why}")))
}
