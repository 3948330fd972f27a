//! The HTTP handler of the read API: checks rights and permits, and responds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use crds::observe::{API_VERSION, GROUP, Proxy, ProxyListMetadata, Resource};
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use model::compiled::Compiled;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::context::ObserveContext;
use super::query::{GraphQuery, ListQuery, ObservePath, may};
use super::scopes::Scopes;
use super::stream::{self, StreamPermits};
use super::worker_pool::WorkerPool;
use super::{
    documents, dry_runs, explanations, parameters, proxies, redaction, route_tables, taps,
};
use crate::aggregated::access::{AccessDecision, Attributes, refusal};
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;
use crate::aggregated::server::{self, ApiResponse, Handler, whole};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Streams at one time. Each new interval costs a reader some milliseconds.
const MAX_STREAMS: usize = 64;
/// Streams of one user, who may have the page open in a few windows.
const MAX_USER_STREAMS: usize = 8;
/// Users of whose streams is known; those without any are forgotten.
const MAX_USERS: usize = 1024;

/// The API.
#[derive(Debug)]
pub(crate) struct ObserveApi {
    context: ObserveContext,
    scopes: Scopes,
    dry_runs: dry_runs::Working,
    workers: WorkerPool,
    streams: Arc<Semaphore>,
    /// Streams of each user.
    users: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl ObserveApi {
    /// An API without requests so far.
    pub(crate) fn new(context: ObserveContext) -> Self {
        Self {
            context,
            scopes: Scopes::default(),
            dry_runs: dry_runs::Working::default(),
            workers: WorkerPool::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            users: Mutex::default(),
        }
    }

    /// Responds, and counts the response.
    async fn respond<B>(&self, user: &User, request: Request<B>) -> ApiResponse
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send,
    {
        let resource = path(request.uri()).map_or("none", |path| path.resource.plural());
        let answer = self.answer(user, request).await;
        let answer = server::given(&self.context.answers.of(user), answer, GROUP);
        let status = answer.status().as_u16();
        self.context.metrics.answered(resource, status);
        answer
    }

    async fn answer<B>(&self, user: &User, request: Request<B>) -> Result<ApiResponse, Refusal>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send,
    {
        if let Some(document) = document(request.uri().path()) {
            return json(StatusCode::OK, &document);
        }
        let path = path(request.uri())?;
        let creates = path.resource.verbs() == ["create"];
        let fits = match *request.method() {
            Method::POST => creates,
            Method::GET | Method::HEAD => !creates,
            _ => false,
        };
        if !fits {
            let verbs = path.resource.verbs().join(" and ");
            let plural = path.resource.plural();
            let message = format!("{plural} offer {verbs} and nothing else");
            return Err(Refusal::not_allowed(message));
        }
        self.must_be_allowed(user, &path.attributes()).await?;
        let query = request.uri().query().unwrap_or_default().to_owned();
        parameters::check(path.resource, &query)?;
        let compiled = self.context.latest.borrow().clone();
        let compiled = compiled.filter(|_| self.context.followed.is_whole());
        let compiled = compiled
            .ok_or_else(|| Refusal::unavailable("not every kind of object has been listed yet"))?;
        self.dispatch(user, (&path, &query), &compiled, request)
            .await
    }

    /// The requested resource, for a user with the right to it.
    async fn dispatch<B>(
        &self,
        user: &User,
        (path, query): (&ObservePath, &str),
        compiled: &Arc<Compiled>,
        request: Request<B>,
    ) -> Result<ApiResponse, Refusal>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send,
    {
        match path.resource {
            Resource::Graphs => self.graph(user, query, path.namespace.clone()).await,
            Resource::Proxies => {
                let query = ListQuery::parse(query)?;
                let table = is_table(&request);
                self.proxies(user, (path, &query), compiled, table).await
            }
            Resource::RouteTables => {
                let table = route_tables::answer(&self.context, user, (path, query), compiled);
                json(StatusCode::OK, &table.await?)
            }
            Resource::Scopes => self.scope(user, compiled).await,
            Resource::Taps => {
                let namespace = path.namespace.as_deref().unwrap_or_default();
                // The right to read everything does not include taps: that is a right of its own.
                let tap = may("create", Resource::Taps, Some(namespace));
                self.must_be_allowed(user, &tap).await?;
                let permits = self.permits(user)?;
                let of = (namespace, query);
                taps::answer(&self.context, user, of, compiled, permits).await
            }
            Resource::Explanations => {
                let body = body(request, explanations::MAX_BODY).await?;
                let querying = explanations::QueryContext {
                    context: &self.context,
                    workers: &self.workers,
                    user,
                    compiled,
                };
                json(StatusCode::CREATED, &querying.answer(path, &body).await?)
            }
            Resource::DryRuns => {
                let body = body(request, dry_runs::MAX_BODY).await?;
                self.dry_run(user, compiled, &body).await
            }
        }
    }

    /// At once from the remembered calls, or as a stream of live calls.
    async fn dry_run(
        &self,
        user: &User,
        compiled: &Arc<Compiled>,
        body: &[u8],
    ) -> Result<ApiResponse, Refusal> {
        let requested = dry_runs::read(body)?;
        let querying = dry_runs::QueryContext {
            context: &self.context,
            scopes: &self.scopes,
            working: &self.dry_runs,
            user,
            compiled,
        };
        if requested.spec.watch_seconds > 0 {
            let permits = self.permits(user)?;
            return dry_runs::watch(&querying, &requested.spec, permits).await;
        }
        json(StatusCode::CREATED, &querying.answer(requested).await?)
    }

    async fn must_be_allowed(&self, user: &User, requested: &Attributes) -> Result<(), Refusal> {
        match self.context.gate.admits(user, requested).await {
            Ok(AccessDecision::Allowed) => Ok(()),
            Ok(AccessDecision::Denied(reason)) => Err(Refusal {
                about: Some((requested.resource, requested.name.clone())),
                ..Refusal::new(
                    StatusCode::FORBIDDEN,
                    "Forbidden",
                    refusal(user, requested, &reason),
                )
            }),
            Err(message) => Err(Refusal::unavailable(message)),
        }
    }

    async fn graph(
        &self,
        user: &User,
        query: &str,
        namespace: Option<String>,
    ) -> Result<ApiResponse, Refusal> {
        let now = SystemTime::now();
        let query = GraphQuery::parse(query, namespace, now)?;
        self.context.must_not_await_load()?;
        let (graph, answers) = (self.context.graph.clone(), self.context.answers.of(user));
        if query.watch {
            let permits = self.permits(user)?;
            let sources = (graph, self.workers.clone());
            return stream::answer(sources, query, answers, permits).await;
        }
        let made = move || {
            let written = graph.written(&query.requested, now);
            // Before it is one text: what others are given meanwhile must not pile up.
            let share = answers.reserve(written.length())?;
            Ok::<_, Refusal>((written.whole(), share))
        };
        let (text, share) = self.workers.run(made).await??;
        Ok(share.of(whole(StatusCode::OK, text)))
    }

    /// A stream's permits: one of all, and one of the user's.
    fn permits(&self, user: &User) -> Result<StreamPermits, Refusal> {
        let full = |whose: &str, most: usize| {
            Refusal::held(format!(
                "{whose} {most} streams are open; close one or try again later"
            ))
        };
        let all = Arc::clone(&self.streams).try_acquire_owned();
        let all = all.map_err(|_| full("all", MAX_STREAMS))?;
        let mut users = self.users.lock();
        if users.len() >= MAX_USERS {
            users.retain(|_, streams| streams.available_permits() < MAX_USER_STREAMS);
        }
        let own = users
            .entry(user.name.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_USER_STREAMS)));
        let own = Arc::clone(own).try_acquire_owned();
        let own = own.map_err(|_| full("this user's", MAX_USER_STREAMS))?;
        Ok(StreamPermits::new(
            [all, own],
            self.context.metrics.streams.clone(),
        ))
    }

    async fn proxies(
        &self,
        user: &User,
        (path, query): (&ObservePath, &ListQuery),
        compiled: &Compiled,
        table: bool,
    ) -> Result<ApiResponse, Refusal> {
        let namespace = path.namespace.as_deref();
        match (namespace, &path.name) {
            (Some(namespace), Some(name)) => {
                let mut proxy = proxies::get(&self.context, compiled, namespace, name)?;
                if !table && !query.without_config {
                    proxies::query_config(&self.context, &mut proxy).await;
                }
                let index = &compiled.model.index;
                redaction::redact(&self.context, user, index, &mut proxy).await?;
                let whole = ProxyListMetadata::default();
                shown(table, (std::slice::from_ref(&proxy), &whole), &proxy)
            }
            _ => {
                let list = proxies::list(&self.context, compiled, namespace, query);
                shown(table, (&list.items, &list.metadata), &list)
            }
        }
    }

    async fn scope(&self, user: &User, compiled: &Compiled) -> Result<ApiResponse, Refusal> {
        let namespaces = compiled.world.namespaces.keys();
        let namespaces = namespaces.map(|namespace| namespace.name.to_string());
        let scope = self
            .scopes
            .of(user, &self.context.gate, namespaces.collect());
        let scope = scope.await.map_err(Refusal::unavailable)?;
        json(StatusCode::OK, &*scope)
    }
}

impl Handler for ObserveApi {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn discovery(&self) -> Value {
        documents::group()
    }

    fn openapi_v2(&self) -> Value {
        documents::openapi_v2()
    }

    fn openapi_v3(&self) -> Value {
        documents::openapi_index()
    }

    fn call(
        self: Arc<Self>,
        user: User,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, ApiResponse> {
        Box::pin(async move { self.respond(&user, request).await })
    }

    fn refused(&self, status: StatusCode) {
        self.context.metrics.answered("none", status.as_u16());
    }
}

fn path(uri: &http::Uri) -> Result<ObservePath, Refusal> {
    let path = uri.path().strip_prefix("/apis/");
    let path = path.and_then(|path| path.strip_prefix(GROUP));
    let path = path.and_then(|path| path.strip_prefix('/'));
    ObservePath::parse(path.ok_or_else(Refusal::no_such_path)?)
}

/// Documents about the API, which reveal nothing about the cluster.
fn document(path: &str) -> Option<Value> {
    let path = path.trim_end_matches('/');
    if path.strip_prefix("/openapi/v3/apis/") == Some(API_VERSION) {
        return Some(documents::openapi_v3());
    }
    let path = path.strip_prefix("/apis/")?;
    if path == API_VERSION {
        return Some(documents::resources());
    }
    (path == GROUP).then(documents::group)
}

async fn body<B>(request: Request<B>, most: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    let body = std::pin::pin!(Limited::new(request.into_body(), most));
    let body = body.collect().await;
    let body = body.map_err(|error| {
        Refusal::bad(format!(
            "the body ({most} bytes at most) cannot be read: {error}"
        ))
    })?;
    Ok(body.to_bytes())
}

fn json(code: StatusCode, value: &impl Serialize) -> Result<ApiResponse, Refusal> {
    let written = serde_json::to_vec(value);
    let written = written.map_err(|error| {
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(code, "InternalError", error.to_string())
    })?;
    Ok(whole(code, written))
}

fn shown(
    table: bool,
    (proxies, metadata): (&[Proxy], &ProxyListMetadata),
    value: &impl Serialize,
) -> Result<ApiResponse, Refusal> {
    if table {
        return json(StatusCode::OK, &proxies::table(proxies, metadata));
    }
    json(StatusCode::OK, value)
}

/// Whether the client would rather have a table, as `kubectl get` does.
fn is_table<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let mut offers = accepted.flat_map(|value| value.split(','));
    offers.any(|offer| offer.contains("as=Table") && offer.contains("v=v1;"))
}

#[cfg(test)]
mod tests;
