//! HTTP probes and hooks by the kubelet's rules: any status from 200 to 399 is a
//! success, redirects to the same host are followed, one to another host counts
//! as a success of its own.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;

use super::exchange::{self, Encrypted, ProbeAnswer, ProbeResult};
use super::target::{self, HttpGet};

/// Applications distinguish probes from users by the first part.
pub(super) const USER_AGENT: &str = concat!("kube-probe/weft-", env!("CARGO_PKG_VERSION"));

/// Redirects that are followed, as in the kubelet's client.
const MAX_REDIRECTS: usize = 10;

/// True to its name: a status that is no success fails.
pub(super) async fn probe(get: &HttpGet, pod_ip: IpAddr) -> ProbeResult {
    let status = fetch(get, pod_ip).await?;
    let verdict = format!("status {}", status.as_u16());
    if (200..400).contains(&status.as_u16()) {
        Ok(verdict)
    } else {
        Err(verdict)
    }
}

/// Any answer is a success.
pub(super) async fn reach(get: &HttpGet, pod_ip: IpAddr) -> ProbeResult {
    fetch(get, pod_ip)
        .await
        .map(|status| format!("status {}", status.as_u16()))
}

async fn fetch(get: &HttpGet, pod_ip: IpAddr) -> Result<StatusCode, String> {
    let host = get.host.clone().unwrap_or_else(|| pod_ip.to_string());
    let mut url = Url {
        tls: get.tls,
        host,
        port: get.port,
        path: get.path.clone(),
    };
    let mut headers = headers(get);
    for _ in 0..=MAX_REDIRECTS {
        let answer = send_probe(&url, &headers, pod_ip).await?;
        let status = answer.head.status;
        let location = match status.as_u16() {
            301 | 302 | 303 | 307 | 308 => answer.head.headers.get(header::LOCATION),
            _ => None,
        };
        let Some(location) = location else {
            return Ok(status);
        };
        let next = url.follow(location)?;
        if next.host != url.host {
            return Ok(status);
        }
        // A `Host` that was written stays as long as redirects name none.
        if is_absolute(location.as_bytes()) {
            headers.remove(header::HOST);
        }
        url = next;
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

async fn send_probe(url: &Url, headers: &HeaderMap, pod_ip: IpAddr) -> Result<ProbeAnswer, String> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = Uri::from(url.path.clone());
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(header::HOST) {
        let host = HeaderValue::try_from(authority(&url.host, url.port))
            .map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
    }
    let stream = exchange::connect(Some(&url.host), url.port, pod_ip).await?;
    if !url.tls {
        return exchange::http1(Box::new(stream), request).await;
    }
    match exchange::encrypt(stream, &url.host).await? {
        Encrypted::Http1(stream) => exchange::http1(stream, request).await,
        Encrypted::Http2(stream) => exchange::http2(stream, in_http2(request)?).await,
    }
}

/// The same request in HTTP/2: the host is a part of the target, and headers do not describe the
/// connection.
fn in_http2(mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, String> {
    let headers = request.headers_mut();
    headers.remove(header::CONNECTION);
    let host = headers.remove(header::HOST);
    let host = host.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let target = Uri::builder().scheme(Scheme::HTTPS).authority(host);
    let target = match request.uri().path_and_query() {
        Some(path) => target.path_and_query(path.clone()),
        None => target.path_and_query("/"),
    };
    *request.uri_mut() = target
        .build()
        .map_err(|error| format!("Host {:?}: {error}", String::from_utf8_lossy(host)))?;
    Ok(request)
}

/// What was written, and what the kubelet adds where nothing was.
fn headers(get: &HttpGet) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &get.headers {
        headers.append(name, value.clone());
    }
    for (name, default) in [(header::USER_AGENT, USER_AGENT), (header::ACCEPT, "*/*")] {
        match headers.get(&name) {
            None => {
                headers.insert(name, HeaderValue::from_static(default));
            }
            // Written as empty means: do not send it.
            Some(value) if value.is_empty() => {
                headers.remove(name);
            }
            Some(_) => {}
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers
}

/// `host:port`, with brackets where the host is an IPv6 address.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.parse::<Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn is_absolute(location: &[u8]) -> bool {
    let starts = |with: &[u8]| {
        location
            .get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    starts(b"http://") || starts(b"https://")
}

struct Url {
    tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    path: PathAndQuery,
}

impl Url {
    /// Where a `Location` seen at this place leads.
    fn follow(&self, location: &HeaderValue) -> Result<Self, String> {
        let bad = || format!("redirect to {location:?}");
        let text = location.to_str().map_err(|_| bad())?;
        let text = text.split('#').next().unwrap_or_default();
        let scheme = if self.tls { "https:" } else { "http:" };
        let absolute = match text {
            _ if is_absolute(text.as_bytes()) => text.to_owned(),
            _ if text.starts_with("//") => format!("{scheme}{text}"),
            _ => {
                let path = match text {
                    _ if text.starts_with('/') => text.to_owned(),
                    _ if text.is_empty() => self.path.to_string(),
                    _ if text.starts_with('?') => format!("{}{text}", self.path.path()),
                    _ => {
                        let folder = self
                            .path
                            .path()
                            .rsplit_once('/')
                            .map_or("", |(folder, _)| folder);
                        format!("{folder}/{text}")
                    }
                };
                return Ok(Self {
                    host: self.host.clone(),
                    path: target::path(&path)?,
                    ..*self
                });
            }
        };
        let uri: Uri = absolute.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        Ok(Self {
            tls,
            host: uri
                .host()
                .ok_or_else(bad)?
                .trim_matches(['[', ']'])
                .to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        })
    }
}
