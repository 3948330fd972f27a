//! Calls to the next service: this instance sends each request on before it answers, so that
//! instances form a chain of services.
//!
//! Method, path, query and body are the same; of the headers only those of [`Propagate`] go
//! along, as an application or its framework passes them on. Connections are kept for the next
//! call.
//!
//! A call ends with the request that it is made for: when its future is dropped, the
//! connection is reset, by which an HTTP/1.1 server learns that its caller is gone.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use http::{
    HeaderMap, HeaderValue, Uri,
    header::{CONTENT_TYPE, TE},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::body::Bytes;

use super::client::{Ask, Client, WholeResponse};

/// Bytes of the longest body that is passed on.
pub const LONGEST: usize = 1 << 20;
/// By which a request of gRPC chooses its status: of a chain it is the last one's.
pub const GRPC_STATUS_WISH: &str = "echo-grpc-status";
/// Connections that are kept for the next call; those beyond end with theirs.
const IDLE: usize = 64;
/// Longer than any hop of a test takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Which headers of a request go along with the call that is made for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagate {
    #[default]
    Nothing,
    /// Trace context, as every instrumented application does.
    Trace,
    /// The mesh's name of the request as well.
    Context,
}

impl Propagate {
    /// `none`, `trace` or `context`.
    pub fn parse(raw: &str) -> anyhow::Result<Self> {
        match raw {
            "none" => Ok(Self::Nothing),
            "trace" => Ok(Self::Trace),
            "context" => Ok(Self::Context),
            other => bail!("{other} must be none, trace or context"),
        }
    }

    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Trace => &["traceparent"],
            Self::Context => &["weft-context", "traceparent"],
        }
    }
}

/// The next service, and the idle connections to it.
#[derive(Debug)]
pub struct Next {
    ask: Ask,
    propagate: Propagate,
    idle: Mutex<Vec<Client>>,
}

impl Next {
    /// The one at `url`, which names a place and no path: that is each request's own.
    pub fn new(url: &str, propagate: Propagate) -> anyhow::Result<Self> {
        let mut ask = Ask::get(url).context("NEXT")?;
        ensure!(
            ask.uri.path() == "/" && ask.uri.query().is_none(),
            "NEXT={url} must end with the port: the path is that of each request"
        );
        ask.resets = true;
        ask.timeout = PATIENCE;
        Ok(Self {
            ask,
            propagate,
            idle: Mutex::default(),
        })
    }

    /// Sends this request to the next service.
    pub async fn ask(&self, head: &Parts, body: Bytes) -> anyhow::Result<WholeResponse> {
        let ask = self.same(head, body)?;
        let mut client = match self.free() {
            Some(mut client) => {
                client.turn_to(ask);
                client
            }
            None => Client::new(ask),
        };
        let answer = client.send().await.map_err(|none| none.detail)?;
        self.keep(client);
        Ok(answer)
    }

    /// The same of a message of gRPC, by a connection of its own.
    pub async fn ask_grpc(&self, head: &Parts, message: Bytes) -> anyhow::Result<WholeResponse> {
        let mut ask = self.same(head, message)?;
        ask.http2 = true;
        let kind = HeaderValue::from_static("application/grpc");
        ask.headers.insert(CONTENT_TYPE, kind);
        ask.headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(wish) = head.headers.get(GRPC_STATUS_WISH) {
            ask.headers.insert(GRPC_STATUS_WISH, wish.clone());
        }
        Client::new(ask).send().await.map_err(|none| none.detail)
    }

    fn same(&self, head: &Parts, body: Bytes) -> anyhow::Result<Ask> {
        let mut ask = self.ask.clone();
        let mut target = ask.uri.into_parts();
        let path = head.uri.path_and_query().cloned();
        target.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
        ask.uri = Uri::from_parts(target)?;
        ask.method = head.method.clone();
        ask.headers = self.along(&head.headers);
        ask.body = body;
        Ok(ask)
    }

    fn along(&self, came: &HeaderMap) -> HeaderMap {
        let mut along = HeaderMap::new();
        for name in self.propagate.names() {
            for value in came.get_all(*name) {
                along.append(*name, value.clone());
            }
        }
        along
    }

    fn free(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    fn keep(&self, client: Client) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(client);
        }
    }
}

#[cfg(test)]
mod tests;
