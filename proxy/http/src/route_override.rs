//! The route override of a request: the Service that it chooses instead of the one it calls
//! (`weft-route`), and what entitles it to that.
//!
//! It comes from the pod's own application with one call, from a caller outside the mesh with a
//! token, or from a peer proxy, which reports where it came from. The policy of the Service that is
//! called grants it, at each call. The first proxy that reads the token removes it, before any log
//! or tap of requests sees it.
//!
//! Claims: calls-58

use http::{HeaderMap, HeaderName, HeaderValue};
use policy::access::Caller;
use policy::name::{ServiceId, SpiffeId};
use policy::overrides::{OverrideOrigin, Proof, ProofHeader, parse};
use sha2::{Digest, Sha256};

use crate::header_names::{PROOF, ROUTE, TOKEN};

/// The headers of a request about it.
#[derive(Debug, Default)]
pub struct OverrideHeaders {
    route: Option<HeaderValue>,
    token: Option<Proof>,
    proof: Option<HeaderValue>,
    /// One of them was there twice, so none of them counts.
    twice: bool,
}

/// An override that can be read. Every namespace is named in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOverride {
    route: Box<str>,
    came: Came,
}

/// How it came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Came {
    /// The own application wrote it on this very call.
    Here(Option<Proof>),
    /// From outside the mesh.
    Outside(Option<Proof>),
    /// From a peer, whose pod is known where its connection proves it.
    From(SpiffeId, Option<Box<str>>, Option<ProofHeader>),
}

/// The sender of the override.
#[derive(Clone, Copy, Debug)]
pub enum OverrideAuthor<'a> {
    /// The own application.
    Own,
    Caller(Caller<'a>),
}

/// There is an override, and it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableOverride;

/// What the next proxy gets.
#[derive(Clone, Debug)]
pub struct ForwardedOverride {
    route: HeaderValue,
    proof: HeaderValue,
}

impl OverrideHeaders {
    /// Takes a header of this name out, if it is one of these.
    pub fn take(map: &mut HeaderMap, name: &HeaderName, to: &mut Option<Box<Self>>) -> bool {
        if ![ROUTE, TOKEN, PROOF].contains(name) {
            return false;
        }
        let headers = to.get_or_insert_default();
        headers.twice |= map.get_all(name).iter().nth(1).is_some();
        let value = map.remove(name);
        if *name == ROUTE {
            headers.route = value;
        } else if *name == PROOF {
            headers.proof = value;
        } else {
            headers.token =
                value.map(|token| Proof::Token(Sha256::digest(token.as_bytes()).into()));
        }
        true
    }

    /// The override of `sender`, which is in this namespace; a peer names all.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn read(
        &self,
        sender: OverrideAuthor<'_>,
        home: &str,
    ) -> Result<Option<RouteOverride>, UnreadableOverride> {
        let Some(route) = &self.route else {
            return Ok(None);
        };
        if self.twice {
            return Err(UnreadableOverride);
        }
        let header = parse(route.as_bytes(), home).map_err(|_| UnreadableOverride)?;
        let token = self.token.clone();
        let came = match sender {
            OverrideAuthor::Own => Came::Here(token),
            OverrideAuthor::Caller(Caller::Outside) => Came::Outside(token),
            OverrideAuthor::Caller(Caller::Mesh { id, pod }) => {
                let proof = self.proof.as_ref();
                let handed = proof.and_then(|proof| ProofHeader::parse(proof.as_bytes()));
                Came::From(id.clone(), pod.map(Box::from), handed)
            }
        };
        let route = header.write(home).into();
        Ok(Some(RouteOverride { route, came }))
    }
}

impl RouteOverride {
    /// Where calls to `service` are to go.
    pub fn of(&self, service: &ServiceId) -> Option<ServiceId> {
        // It names every namespace, so it has no home.
        parse(self.route.as_bytes(), "").ok()?.of(service, "")
    }

    pub fn requested(&self) -> OverrideOrigin<'_> {
        match &self.came {
            Came::Here(_) => OverrideOrigin::Here,
            Came::Outside(_) => OverrideOrigin::With(Caller::Outside, &[]),
            Came::From(id, pod, handed) => {
                let through = handed.as_ref().map(|handed| &*handed.through);
                let pod = pod.as_deref();
                OverrideOrigin::With(Caller::Mesh { id, pod }, through.unwrap_or_default())
            }
        }
    }

    pub fn proof(&self) -> Option<&Proof> {
        match &self.came {
            Came::Here(proof) | Came::Outside(proof) => proof.as_ref(),
            Came::From(_, _, handed) => handed.as_ref().map(|handed| &handed.proof),
        }
    }

    /// What the proxy of this account passes on to peers; `None` where no policy could grant it.
    pub fn onward(&self, own: &SpiffeId) -> Option<Box<ForwardedOverride>> {
        let first = |proof| ProofHeader {
            proof,
            through: Vec::new(),
        };
        let handed = match &self.came {
            // The application has the right of its account, whatever token it shows.
            Came::Here(Some(Proof::Token(hash))) => first(Proof::Both(*hash, own.clone())),
            Came::Here(_) => first(Proof::Account(own.clone())),
            Came::Outside(proof) => first(proof.clone()?),
            Came::From(peer, _, handed) => handed.as_ref()?.after(peer)?,
        };
        Some(Box::new(ForwardedOverride {
            route: HeaderValue::from_str(&self.route).ok()?,
            proof: HeaderValue::from_str(&handed.write()).ok()?,
        }))
    }
}

impl ForwardedOverride {
    pub fn write(&self, map: &mut HeaderMap) {
        map.insert(ROUTE, self.route.clone());
        map.insert(PROOF, self.proof.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "shop";
    const OUTSIDE: OverrideAuthor<'static> = OverrideAuthor::Caller(Caller::Outside);

    fn peer(id: &SpiffeId) -> OverrideAuthor<'_> {
        OverrideAuthor::Caller(Caller::mesh(id))
    }

    fn account(name: &str) -> SpiffeId {
        SpiffeId::of("cluster.local", HOME, name).unwrap()
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> Option<Box<OverrideHeaders>> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        let names: Vec<HeaderName> = map.keys().cloned().collect();
        let mut to = None;
        for name in names {
            OverrideHeaders::take(&mut map, &name, &mut to);
        }
        assert!(!map.contains_key("weft-route-token"));
        to
    }

    fn forwarded(route_override: &RouteOverride, own: &str) -> Option<(String, String)> {
        let mut map = HeaderMap::new();
        route_override.onward(&account(own))?.write(&mut map);
        let text = |name: HeaderName| map[name].to_str().unwrap().to_owned();
        Some((text(ROUTE), text(PROOF)))
    }

    #[test]
    fn route_override_travels_with_its_proof_and_path() {
        let headers = headers(&[("weft-route", "catalog=next"), ("x", "1")]).unwrap();
        let route_override = headers.read(OverrideAuthor::Own, HOME).unwrap().unwrap();
        let next = Some(ServiceId::new(HOME, "next"));
        assert_eq!(route_override.of(&ServiceId::new(HOME, "catalog")), next);
        assert_eq!(route_override.of(&ServiceId::new("other", "catalog")), None);
        let (route, proof) = forwarded(&route_override, "qa").unwrap();
        assert_eq!(route, "catalog.shop=next");
        assert_eq!(proof, account("qa").as_str());
        let headers = OverrideHeaders {
            route: HeaderValue::from_str(&route).ok(),
            proof: HeaderValue::from_str(&proof).ok(),
            ..OverrideHeaders::default()
        };
        let qa = account("qa");
        let route_override = headers.read(peer(&qa), "elsewhere").unwrap().unwrap();
        assert_eq!(route_override.of(&ServiceId::new(HOME, "catalog")), next);
        assert_eq!(route_override.proof(), Some(&Proof::Account(qa.clone())));
        let (_, proof) = forwarded(&route_override, "web").unwrap();
        assert_eq!(proof, format!("{}, {}", qa.as_str(), qa.as_str()));
    }

    #[test]
    fn of_a_token_nothing_is_kept_but_its_hash() {
        let both = [("weft-route", "a=b"), ("weft-route-token", "secret")];
        let headers = headers(&both).unwrap();
        assert!(!format!("{headers:?}").contains("secret"));
        let hash: [u8; 32] = Sha256::digest(b"secret").into();
        for (sender, proof) in [
            (OverrideAuthor::Own, Proof::Both(hash, account("web"))),
            (OUTSIDE, Proof::Token(hash)),
        ] {
            let route_override = headers.read(sender, HOME).unwrap().unwrap();
            assert_eq!(route_override.proof(), Some(&Proof::Token(hash)));
            assert_eq!(forwarded(&route_override, "web").unwrap().1, proof.write());
        }
        let web = account("web");
        let route_override = headers.read(peer(&web), HOME).unwrap().unwrap();
        assert_eq!(
            (route_override.proof(), forwarded(&route_override, "web")),
            (None, None)
        );
    }

    #[test]
    fn ungrantable_or_unreadable_override_is_not_forwarded() {
        let unproven = headers(&[("weft-route", "a=b")]).unwrap();
        let route_override = unproven.read(OUTSIDE, HOME).unwrap().unwrap();
        assert_eq!(forwarded(&route_override, "web"), None);
        assert!(headers(&[("weft-routes", "a=b")]).is_none());
        let none = headers(&[("weft-route-token", "x")]).unwrap();
        assert_eq!(none.read(OUTSIDE, HOME), Ok(None));
        let twice = [("weft-route", "a=b"), ("weft-route", "a=c")];
        assert_eq!(
            headers(&twice).unwrap().read(OverrideAuthor::Own, HOME),
            Err(UnreadableOverride)
        );
        let bad = headers(&[("weft-route", "a")]).unwrap();
        assert_eq!(bad.read(OverrideAuthor::Own, HOME), Err(UnreadableOverride));
    }
}
