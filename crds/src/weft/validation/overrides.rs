//! Validates the section `overrides`: which requests may choose another Service than the one that
//! they call.

use k8s_openapi::jiff::Timestamp;
use policy::{
    name::ServiceId,
    traffic::{bounds, call::Token},
};

use super::reader::{FieldReader, shown};
use super::scope::{self, Override};
use crate::{
    smi::validation::{Code, Source, SourceKind},
    weft::{self, OverrideToken, SourceRef},
};

pub(super) fn overrides(
    written: &[weft::Override],
    reader: &mut FieldReader<'_>,
) -> Option<Vec<Override>> {
    reader.whole(|reader| {
        if !reader.fits("spec.overrides", written, bounds::OVERRIDES) {
            return None;
        }
        let read = written.iter().enumerate();
        let read = read.map(|(i, one)| entry(&format!("spec.overrides[{i}]"), one, reader));
        Some(read.collect())
    })
}

fn entry(field: &str, written: &weft::Override, reader: &mut FieldReader<'_>) -> Override {
    let most = bounds::OVERRIDE_LISTED;
    let mut to = Vec::new();
    if written.to.is_empty() {
        let text = "must name at least one Service that may be chosen";
        reader.wrong(&format!("{field}.to"), text);
    } else if reader.fits(&format!("{field}.to"), &written.to, most) {
        for (i, name) in written.to.iter().enumerate() {
            to.extend(target(&format!("{field}.to[{i}]"), name, reader));
        }
    }
    let listed = written.tokens.as_deref().unwrap_or_default();
    let mut tokens = Vec::new();
    if reader.fits(&format!("{field}.tokens"), listed, most) {
        for (i, one) in listed.iter().enumerate() {
            tokens.extend(token(&format!("{field}.tokens[{i}]"), one, reader));
        }
    }
    Override {
        to,
        sources: callers(
            &format!("{field}.sources"),
            written.sources.as_deref(),
            reader,
        ),
        forwarders: callers(
            &format!("{field}.forwarders"),
            written.forwarders.as_deref(),
            reader,
        ),
        tokens,
    }
}

/// A Service that may be chosen. The own one may be meant, to go past a TrafficSplit of it; but
/// mostly it is a slip.
fn target(field: &str, name: &str, reader: &mut FieldReader<'_>) -> Option<ServiceId> {
    let service = reader.service(field, name)?;
    if reader.own == Some(&service) {
        let text = format!(
            "is {name:?}, the Service that this policy is about: who chooses it goes where the \
             call was going, only past its TrafficSplits, tenants, copies and fallback; name \
             another one, or leave it out"
        );
        reader.caution(field, Code::FieldIgnored, &text);
    }
    Some(service)
}

/// Callers that can prove an identity.
fn callers(
    field: &str,
    written: Option<&[SourceRef]>,
    reader: &mut FieldReader<'_>,
) -> Vec<Source> {
    let written = written.unwrap_or_default();
    if !reader.fits(field, written, bounds::SOURCES) {
        return Vec::new();
    }
    let mut callers = Vec::new();
    for (i, one) in written.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let caller = scope::caller(&field, one, reader.mistakes());
        match caller.kind {
            Some(SourceKind::Unauthenticated) => {
                let text = "is no particular caller; give callers outside the mesh a token";
                reader.wrong(&format!("{field}.name"), text);
            }
            Some(_) => callers.push(caller),
            None => {}
        }
    }
    callers
}

fn token(field: &str, written: &OverrideToken, reader: &mut FieldReader<'_>) -> Option<Token> {
    let sha256 = policy::overrides::sha256(&written.sha256);
    if sha256.is_none() {
        let text = "must be the SHA-256 of the secret, as 64 hex digits in lower case; never the \
                    secret itself";
        reader.wrong(&format!("{field}.sha256"), text);
    }
    let expires = written.expires.parse::<Timestamp>().ok();
    if expires.is_none() {
        let text = format!(
            "is {:?}, but must be a time such as \"2027-01-31T00:00:00Z\"",
            shown(&written.expires)
        );
        reader.wrong(&format!("{field}.expires"), &text);
    }
    Some(Token {
        sha256: sha256?,
        expires: expires?.as_second(),
    })
}
