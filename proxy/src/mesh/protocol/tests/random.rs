//! Messages between two proxies at random, the same for the same seed.

use http::{Request, Response};
use policy::sticky::{STEP, mix};

use super::super::*;
use crate::http::header_names::{
    ATTEMPT, DESTINATION, LOAD, PRIORITY, PROOF, REASON, REST, ROUTE, SHADOW, SPENT, TIMEOUT,
};

/// The headers of a request that are meant for its server.
pub(super) const OF_REQUESTS: [HeaderName; 8] = [
    TIMEOUT,
    REST,
    DESTINATION,
    PRIORITY,
    ATTEMPT,
    SHADOW,
    ROUTE,
    PROOF,
];
/// And of an answer.
pub(super) const OF_ANSWERS: [HeaderName; 3] = [REASON, SPENT, LOAD];

/// An upgrade by GET.
pub(super) fn by_get(port: AppPort, to: HeaderValue, parts: Parts) -> PeerRequest {
    PeerRequest::Upgrade {
        port,
        to,
        body: 0,
        parts,
    }
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        number
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn text(&mut self, of: &[u8], most: usize) -> Vec<u8> {
        let length = self.below(most) + 1;
        (0..length).map(|_| self.one(of)).collect()
    }

    fn word(&mut self) -> String {
        String::from_utf8(self.text(b"abcxyz019-", 12)).unwrap()
    }

    fn port(&mut self) -> AppPort {
        loop {
            let known = [0, 15101, 15106, 15108, 15190, 80, 443, 8080];
            let any = self.next() as u16;
            let port = if self.below(2) == 0 {
                self.one(&known)
            } else {
                any
            };
            if let Some(port) = AppPort::new(port) {
                return port;
            }
        }
    }

    fn headers(&mut self, map: &mut HeaderMap) {
        let names = [
            "accept",
            "cookie",
            "te",
            "x-weft",
            "weftage",
            "authorization",
            "content-type",
            "x-b3-traceid",
        ];
        for _ in 0..self.below(9) {
            let name = HeaderName::from_static(self.one(&names));
            let value = self.text(b"abc XYZ,;=\"/\t019\xe4\xff", 30);
            map.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
    }

    /// Some of these headers, which a message carries as they stand.
    fn insert_some(&mut self, map: &mut HeaderMap, names: &[HeaderName]) {
        for name in names {
            if self.below(3) == 0 {
                let value = HeaderValue::try_from(self.word()).unwrap();
                map.insert(name, value);
            }
        }
    }

    /// An application's request as a proxy has received it, with what the proxy adds.
    fn parts(&mut self, transport: Transport) -> Parts {
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PURGE"];
        let method = self.one(&methods);
        let mut host = self.word().replace('-', "a");
        if self.below(2) == 0 {
            host = format!("{host}:{}", self.below(65536));
        }
        let mut target = format!("/{}%2f{}", self.word(), self.word());
        if self.below(3) == 0 {
            target = format!("{target}?{}={}", self.word(), self.word());
        }
        if self.below(4) == 0 {
            let scheme = self.one(&["http", "https"]);
            target = format!("{scheme}://{host}{target}");
        }
        let versions = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2];
        let version = match transport {
            Transport::Http1 => Version::HTTP_11,
            Transport::Http2 => self.one(&versions),
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .version(version);
        let mut parts = request.body(()).unwrap().into_parts().0;
        self.headers(&mut parts.headers);
        let host = HeaderValue::try_from(host).unwrap();
        parts.headers.insert(header::HOST, host);
        self.headers(&mut parts.headers);
        if method.starts_with('P') {
            parts.headers.insert(header::CONTENT_LENGTH, 5.into());
        }
        self.insert_some(&mut parts.headers, &OF_REQUESTS);
        parts
    }

    pub(super) fn request(&mut self, transport: Transport) -> PeerRequest {
        let (port, mut parts) = (self.port(), self.parts(transport));
        match (transport, self.below(4)) {
            (Transport::Http2, 0) => {
                parts.method = Method::GET;
                // What has a body asks for no upgrade.
                parts.headers.remove(header::CONTENT_LENGTH);
                let listed: Vec<String> = (0..=self.below(3)).map(|_| self.word()).collect();
                let to = format!("x{}", listed.join(", x"));
                let to = HeaderValue::try_from(to).unwrap();
                by_get(port, to, parts)
            }
            (Transport::Http2, 1) => {
                let authority = format!("10.0.0.{}:{}", self.below(256), port.get());
                let authority = authority.parse().unwrap();
                let handed = HandedOver {
                    object: "shop/pay".into(),
                    to: self.word().into(),
                };
                PeerRequest::Tcp {
                    port,
                    authority,
                    external: (self.below(2) == 0).then_some(handed),
                }
            }
            _ => PeerRequest::Http {
                port,
                speak: AppHttp::of(parts.version),
                parts,
            },
        }
    }

    pub(super) fn response(&mut self, kind: RequestKind) -> PeerResponse {
        let status = StatusCode::from_u16(200 + self.below(400) as u16).unwrap();
        let mut parts = Response::new(()).into_parts().0;
        parts.status = status;
        self.headers(&mut parts.headers);
        self.insert_some(&mut parts.headers, &OF_ANSWERS);
        match (kind, self.below(4)) {
            (_, 0) => {
                let reason = self.one(&Reason::ALL);
                let response = Failure::not_sent(reason, "x").response(self.below(2) == 0);
                let parts = response.into_parts().0;
                PeerResponse::NotSent { reason, parts }
            }
            (RequestKind::Upgrade, 1) => {
                parts.status = StatusCode::SWITCHING_PROTOCOLS;
                let to = HeaderValue::try_from(self.word()).unwrap();
                let to = (self.below(4) > 0).then_some(to);
                PeerResponse::Switched { to, parts }
            }
            _ => PeerResponse::Answered(parts),
        }
    }
}
