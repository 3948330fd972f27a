//! The call of a Gateway's client: its URL, and the request as the Gateway reads it.
//!
//! The Gateway normalises the path once, before it looks for a rule; TLS names the host of the URL,
//! which a header of the request may contradict.

use crds::observe::{ExplanationSpec, Header};
use http::Uri;
use http::header::HOST;
use policy::egress::host_name;
use policy::gateway::ListenerProtocol;
use policy::http_match::RequestFacts;
use policy::path::normalise;

use super::call::Request;
use super::question::BadQuestion;

/// Letters of a wrong URL that are repeated.
const SHOWN: usize = 64;

/// A call to a URL.
#[derive(Debug)]
pub(super) struct ClientCall {
    pub(super) is_tls: bool,
    pub(super) port: u16,
    /// As TLS names it; none of an address.
    server_name: Option<String>,
    /// With its host, and with the path that rules see.
    request: Request,
    /// Whether that is another path than the client's.
    is_normalised: bool,
    /// What is wrong with the path.
    bad_path: Option<String>,
}

impl ClientCall {
    pub(super) fn read(spec: &ExplanationSpec) -> Result<Self, BadQuestion> {
        if spec.tcp {
            let reason = "a call to a Gateway is explained by its URL: leave tcp out";
            return Err(BadQuestion::new("tcp", reason));
        }
        let written = spec.path.as_deref().unwrap_or_default();
        let bad = |why: &str| {
            let shown: String = written.chars().take(SHOWN).collect();
            let reason = format!(
                "{shown:?} {why}; clients of a Gateway call a URL, such as https://HOST/PATH"
            );
            BadQuestion::new("path", reason)
        };
        let url = written.parse::<Uri>().map_err(|_| bad("is no URL"))?;
        let is_tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("begins with neither https:// nor http://")),
        };
        let (authority, host, port) = authority(&url).map_err(bad)?;
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        let normal = normalise(url.path());
        let path = normal.as_deref().unwrap_or(url.path());
        let target = match url.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let mut headers = spec.headers.clone();
        let is_host = |header: &Header| header.name.eq_ignore_ascii_case(HOST.as_str());
        if !headers.iter().any(is_host) {
            headers.push(Header {
                name: HOST.as_str().to_owned(),
                value: authority.to_owned(),
            });
        }
        let request = Request::read(&ExplanationSpec {
            method: spec.method.clone(),
            path: Some(target),
            headers,
            ..ExplanationSpec::default()
        })?;
        Ok(Self {
            is_tls,
            port,
            server_name: host_name(host).map(std::borrow::Cow::into_owned),
            request,
            is_normalised: path != url.path(),
            bad_path: normal.err().map(|bad| format!("the path {bad}")),
        })
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref().filter(|_| self.is_tls)
    }

    /// As the request has it.
    pub(super) fn host(&self) -> Option<&str> {
        let host = self.request.headers.get(HOST)?;
        host.to_str().ok()
    }

    /// Why every listener answers 400.
    pub(super) fn fault(&self) -> Option<&str> {
        self.bad_path.as_deref().or(self.request.malformed)
    }

    /// The path that rules see, where it is another than the client's.
    pub(super) fn normalised(&self) -> Option<&str> {
        self.is_normalised.then_some(&*self.request.path)
    }

    pub(super) fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.request.method,
            path: &self.request.path,
            query: self.request.query.as_deref(),
            headers: &self.request.headers,
        }
    }

    /// What goes on from a listener of this protocol: the request, or bytes of which nothing is
    /// read.
    pub(super) fn request_at(&self, protocol: ListenerProtocol) -> Result<Request, BadQuestion> {
        match protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => Ok(self.request.clone()),
            ListenerProtocol::Tls | ListenerProtocol::Tcp => Request::read(&ExplanationSpec {
                tcp: true,
                ..ExplanationSpec::default()
            }),
        }
    }
}

/// The host and port of a URL as a request has them, the host, and the port if it is written.
fn authority(url: &Uri) -> Result<(&str, &str, Option<u16>), &'static str> {
    let (Some(authority), Some(host)) = (url.authority(), url.host()) else {
        return Err("names no host");
    };
    let authority = authority.as_str();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
    match url.port_u16() {
        Some(port) if port > 0 => Ok((authority, host, Some(port))),
        None if authority == host => Ok((authority, host, None)),
        _ => Err("has a port that is none from 1 to 65535"),
    }
}
