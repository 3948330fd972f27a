//! The filters that send a request, or its caller, to another host or path.

use std::net::IpAddr;
use std::sync::Arc;

use crds::label_syntax::is_dns_subdomain;
use http::StatusCode;
use policy::route::edits::{HeaderEdits, PathRewrite, Redirect, Rewrite, Scheme};

use crate::reader::{Broken, Field, Object};
use crate::route::path::problem_of_replacement;

/// How a path is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replace {
    Full,
    Prefix,
}

const REPLACE: [(&str, Replace); 2] = [
    ("ReplaceFullPath", Replace::Full),
    ("ReplacePrefixMatch", Replace::Prefix),
];

const SCHEMES: [(&str, Scheme); 2] = [("http", Scheme::Http), ("https", Scheme::Https)];

/// Statuses of redirects.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// `urlRewrite`. `prefix` is that of the rule's only match.
pub(super) fn rewrite(content: &Object<'_>, prefix: Option<&str>) -> Result<Rewrite, Broken> {
    content.only(&["hostname", "path"])?;
    Ok(Rewrite {
        host: content.read("hostname", hostname)?,
        path: content.read("path", |field| path(field, prefix))?,
    })
}

/// `requestRedirect`.
pub(super) fn redirect(content: &Object<'_>, prefix: Option<&str>) -> Result<Redirect, Broken> {
    content.only(&["scheme", "hostname", "path", "port", "statusCode"])?;
    let port = content.read("port", |port| port.number(&(1..=u16::MAX)))?;
    let status = content.read("statusCode", status)?;
    Ok(Redirect {
        scheme: content.read("scheme", |scheme| scheme.one_of(&SCHEMES))?,
        host: content.read("hostname", hostname)?,
        port,
        path: content.read("path", |field| path(field, prefix))?,
        status: status.unwrap_or(StatusCode::FOUND),
        response: HeaderEdits::default(),
        cors: None,
    })
}

fn status(field: &Field<'_>) -> Result<StatusCode, Broken> {
    let number = field.number(&(0..=u16::MAX)).ok();
    let number = number.filter(|number| STATUSES.contains(number));
    let status = number.and_then(|number| StatusCode::from_u16(number).ok());
    status.ok_or_else(|| field.broken("must be 301, 302, 303, 307 or 308"))
}

/// A name of a host, without a port, and no address.
fn hostname(field: &Field<'_>) -> Result<Arc<str>, Broken> {
    let name = field.text()?;
    if !is_dns_subdomain(name) || name.parse::<IpAddr>().is_ok() {
        return Err(
            field.broken("must be the name of a host in small letters, such as shop.example")
        );
    }
    Ok(name.into())
}

fn path(field: &Field<'_>, prefix: Option<&str>) -> Result<PathRewrite, Broken> {
    let written = field.object()?;
    let replace = written.need("type")?.one_of(&REPLACE)?;
    let content = match replace {
        Replace::Full => "replaceFullPath",
        Replace::Prefix => "replacePrefixMatch",
    };
    written.only(&["type", content])?;
    let with = written.need(content)?;
    let text = with.text()?;
    if let Some(problem) = problem_of_replacement(text) {
        return Err(with.broken(problem));
    }
    match (replace, prefix) {
        (Replace::Full, _) => Ok(PathRewrite::Full(text.to_owned())),
        (Replace::Prefix, Some(prefix)) => Ok(PathRewrite::Prefix {
            matched: prefix.to_owned(),
            with: text.to_owned(),
        }),
        (Replace::Prefix, None) => {
            let text = "needs a rule with exactly one match, whose path is of type PathPrefix";
            Err(with.broken(text))
        }
    }
}
