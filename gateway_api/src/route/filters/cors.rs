//! The filter that lets pages of other origins read answers.

use http::{Method, header::HeaderName};
use policy::route::cors::{Allowed, AllowedOrigin, Cors};

use crate::reader::{Broken, Field, Object};

/// Stands for all.
const ANY: &str = "*";
/// Seconds, where none are written.
const DEFAULT_MAX_AGE: u32 = 5;

/// `cors`.
pub(super) fn read(content: &Object<'_>) -> Result<Cors, Broken> {
    content.only(&[
        "allowOrigins",
        "allowCredentials",
        "allowMethods",
        "allowHeaders",
        "exposeHeaders",
        "maxAge",
    ])?;
    let origins = content.list("allowOrigins")?;
    let origins = origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?;
    let most = i32::MAX.unsigned_abs();
    let max_age = content.read("maxAge", |age| age.number(&(1..=most)))?;
    Ok(Cors {
        origins,
        credentials: content
            .read("allowCredentials", Field::flag)?
            .unwrap_or(false),
        methods: allowed(content, "allowMethods", method)?,
        headers: allowed(content, "allowHeaders", header)?,
        expose: allowed(content, "exposeHeaders", header)?,
        max_age: max_age.unwrap_or(DEFAULT_MAX_AGE),
    })
}

fn origin(field: &Field<'_>) -> Result<AllowedOrigin, Broken> {
    let origin = field.text()?.parse::<AllowedOrigin>();
    origin.map_err(|bad| field.broken(bad.to_string()))
}

/// The entries of a list; all are allowed where a star is among them.
fn allowed<T>(
    content: &Object<'_>,
    list: &str,
    read: fn(&Field<'_>) -> Result<T, Broken>,
) -> Result<Allowed<T>, Broken> {
    let mut some = Vec::new();
    let mut any = false;
    for field in content.list(list)? {
        if field.text()? == ANY {
            any = true;
        } else {
            some.push(read(&field)?);
        }
    }
    Ok(if any {
        Allowed::Any
    } else {
        Allowed::Only(some)
    })
}

fn method(field: &Field<'_>) -> Result<Method, Broken> {
    let method = Method::from_bytes(field.text()?.as_bytes());
    method.map_err(|_| field.broken("must be a method of HTTP"))
}

fn header(field: &Field<'_>) -> Result<HeaderName, Broken> {
    let name = HeaderName::from_bytes(field.text()?.as_bytes());
    name.map_err(|_| field.broken("must be the name of a header"))
}
