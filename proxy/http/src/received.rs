//! A received request that may be sent on: valid, cleaned of hop-by-hop headers, with its host and
//! the protocol that it requests to be upgraded to. Both sides receive requests by this one
//! constructor, so neither can forget a step, and what can be read in two ways is refused from any
//! sender.

use std::net::IpAddr;

use bytes::Bytes;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version, header};
use policy::context::Id;
use policy::host::{is_host, named_once};
use policy::protocol::CONNECT_REFUSED;
use policy::reason::Reason;
use policy::traffic::guard::Priority;

use crate::body::{self, Body};
use crate::failure::Failure;
use crate::grpc::is_grpc;
use crate::headers::{self, Ours, Times};
use crate::incoming::{self, IncomingBody};
use crate::route_override::OverrideHeaders;
use crate::shadow::Shadow;
use crate::upgrade::Side;

/// A request that may be sent on.
#[derive(Debug)]
pub struct Received {
    /// Without what belongs to one connection, and without headers of ours. Where the target has an
    /// authority, `Host` is the same.
    pub parts: Parts,
    pub body: Body,
    /// The protocols that it asks to upgrade to.
    pub upgrade: Option<HeaderValue>,
    /// The caller's side of that upgrade.
    pub caller_side: Option<Side>,
    /// How its caller expects failures.
    pub grpc: bool,
    /// Its times in headers of ours. Not every sender is believed.
    pub times: Option<Box<Times>>,
    /// The request that it is made for, of which the same holds.
    pub context: Option<Id>,
    /// What class it may have at most, and whether it is sent again, of which the same holds.
    pub priority: Option<Priority>,
    pub retry: bool,
    /// Its headers about copies, of which the same holds.
    pub shadow: Option<Shadow>,
    /// Its headers about where calls are to go, of which the same holds.
    pub route_override: Option<Box<OverrideHeaders>>,
    /// The client for which a Gateway passes it on, of which the same holds.
    pub client_address: Option<IpAddr>,
}

/// The source of the protocols that a request asks to upgrade to.
#[derive(Debug)]
pub enum Upgrades {
    /// Its own headers.
    Own,
    /// Read by the peer proxy that it comes from, and by no other part. On the heap, because most
    /// requests ask for none.
    FromPeer(Option<Box<PeerUpgrade>>),
}

/// What a peer proxy has read of a request that asks for an upgrade.
#[derive(Debug)]
pub struct PeerUpgrade {
    pub to: HeaderValue,
    /// All of the request's body. What comes behind it is no part of the request.
    pub body: Bytes,
}

/// A request that is refused from any sender.
#[derive(Debug)]
pub struct Rejected {
    pub failure: Failure,
    /// As it came. On the heap, because most are not rejected.
    pub parts: Box<Parts>,
}

impl Received {
    /// # Errors
    /// When the request can be read in two ways, or is not for a proxy to send on.
    pub fn new(request: Request<IncomingBody>, upgrades: Upgrades) -> Result<Self, Rejected> {
        let (mut parts, body) = request.into_parts();
        if let Err(detail) = acceptable(&parts).and_then(|()| not_connect(&parts)) {
            let failure = Failure::refused(Reason::BadRequest, detail);
            let parts = Box::new(parts);
            return Err(Rejected { failure, parts });
        }
        headers::name_authority(&mut parts);
        let grpc = is_grpc(&parts.headers);
        let (upgrade, whole) = match upgrades {
            Upgrades::Own => {
                AbsoluteForm::note(&mut parts);
                (headers::upgrade_of(&parts), Bytes::new())
            }
            Upgrades::FromPeer(upgrade) => upgrade
                .map(|upgrade| (Some(upgrade.to), upgrade.body))
                .unwrap_or_default(),
        };
        let (caller_side, body) = match body {
            body if upgrade.is_none() => (None, incoming::incoming(body)),
            IncomingBody::Http2(stream) => (Some(Side::Mesh(stream)), body::text(whole)),
            body => (Side::of(&mut parts.extensions), incoming::incoming(body)),
        };
        let Ours {
            times,
            context,
            priority,
            retry,
            shadow,
            route_override,
            client_address,
        } = clean(&mut parts);
        Ok(Self {
            parts,
            body,
            upgrade,
            caller_side,
            grpc,
            times,
            context,
            priority,
            retry,
            shadow,
            route_override,
            client_address,
        })
    }

    /// Forgets what its sender has written into headers of ours, and that it took this proxy for a
    /// forward proxy: clients outside the mesh have no say in either.
    pub fn of_outside(&mut self) {
        self.times = None;
        self.context = None;
        self.priority = None;
        self.retry = false;
        self.shadow = None;
        self.route_override = None;
        self.client_address = None;
        if self.parts.extensions.remove::<AbsoluteForm>().is_some() {
            // `Host` is the same by now.
            let path = self.parts.uri.path_and_query().cloned();
            self.parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        }
    }
}

/// Takes out what ends here, and puts the host where rules look for it. The values of headers of
/// ours are returned.
fn clean(parts: &mut Parts) -> Ours {
    headers::strip_hop_by_hop(&mut parts.headers);
    let ours = headers::strip_ours(&mut parts.headers);
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(&mut parts.headers);
    }
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        // Rules may name the host, whatever the version of HTTP; a target with an
        // authority beats the header.
        parts.headers.insert(header::HOST, host);
    }
    ours
}

/// In the extensions of a request over HTTP/1.1 whose target was a whole address, as for a forward
/// proxy: the scheme of that. Its application gets it in that form again, and may send all that it
/// gets on to the host that the address names.
#[derive(Clone, Debug)]
pub struct AbsoluteForm(pub Scheme);

impl AbsoluteForm {
    /// Over HTTP/2 every target has a scheme, and it has no meaning.
    fn note(parts: &mut Parts) {
        if parts.version != Version::HTTP_2
            && let Some(scheme) = parts.uri.scheme().cloned()
        {
            parts.extensions.insert(Self(scheme));
        }
    }

    pub fn is_of(parts: &Parts) -> bool {
        parts.extensions.get::<Self>().is_some()
    }
}

/// The target as it is written in HTTP/1.1: the path, and before it the address where the caller
/// wrote that. What is no path stays as it is: behind an address it would be another one.
pub fn written_target(parts: &Parts) -> Uri {
    let path = parts.uri.path_and_query().cloned();
    let path = path.unwrap_or(PathAndQuery::from_static("/"));
    let form = parts.extensions.get::<AbsoluteForm>();
    if let Some(AbsoluteForm(scheme)) = form.filter(|_| path.path().starts_with('/')) {
        let mut whole = http::uri::Parts::default();
        whole.scheme = Some(scheme.clone());
        whole.authority = authority_of(parts);
        whole.path_and_query = Some(path.clone());
        if let Ok(whole) = Uri::from_parts(whole) {
            return whole;
        }
    }
    Uri::from(path)
}

/// Authority of the request: the URI's before the Host header, as HTTP wants it. An empty
/// one is legal where there is none, and nothing that HTTP/2 could carry.
pub fn host_of(parts: &Parts) -> Option<&str> {
    parts
        .uri
        .authority()
        .map(Authority::as_str)
        .or_else(|| parts.headers.get(header::HOST)?.to_str().ok())
        .filter(|host| !host.is_empty())
}

/// The same, in the form of a target.
pub fn authority_of(parts: &Parts) -> Option<Authority> {
    let authority = parts.uri.authority().cloned();
    authority.or_else(|| Authority::try_from(parts.headers.get(header::HOST)?.as_bytes()).ok())
}

fn not_connect(parts: &Parts) -> Result<(), &'static str> {
    if parts.method == Method::CONNECT {
        return Err(CONNECT_REFUSED);
    }
    Ok(())
}

/// Whether a request can be read in one way only.
///
/// # Errors
/// Why not.
pub fn acceptable(parts: &Parts) -> Result<(), &'static str> {
    let (map, uri) = (&parts.headers, &parts.uri);
    if uri.scheme().is_none() && uri.authority().is_some() && parts.method != Method::CONNECT {
        // Servers disagree on what it is; sent on it would be another one.
        return Err("the request target does not begin with a slash");
    }
    framed_once(parts)?;
    if let Some(first) = named_once(map)? {
        let differs = |authority: &Authority| authority.as_str().as_bytes() != first.as_bytes();
        if parts.version == Version::HTTP_2 && uri.authority().is_some_and(differs) {
            return Err("Host differs from :authority");
        }
    } else if parts.version != Version::HTTP_10 && uri.authority().is_none() {
        return Err("no Host header");
    }
    if let Some(authority) = uri.authority()
        && !is_host(authority.as_str().as_bytes())
    {
        return Err("the authority is no host");
    }
    Ok(())
}

/// Where its body ends is marked once, and in a way that every server knows.
fn framed_once(parts: &Parts) -> Result<(), &'static str> {
    let map = &parts.headers;
    let mut encodings = map.get_all(header::TRANSFER_ENCODING).iter();
    let Some(first) = encodings.next() else {
        return Ok(());
    };
    if map.contains_key(header::CONTENT_LENGTH) {
        return Err("Content-Length beside Transfer-Encoding");
    }
    if parts.version == Version::HTTP_10 {
        return Err("Transfer-Encoding in HTTP/1.0");
    }
    let chunked = first
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked");
    if encodings.next().is_some() || !chunked {
        // What else the body is wrapped in would be lost on the way.
        return Err("Transfer-Encoding other than chunked");
    }
    Ok(())
}
