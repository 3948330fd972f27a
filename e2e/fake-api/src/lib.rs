//! An API server in memory for tests: objects by path, resource versions that
//! conflict as the real ones do, patches, and watches that start with what is there.
//!
//! It validates nothing but versions; what depends on validation is tested in a real
//! cluster.

mod patch;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::patch::PatchKind;

/// How long a watch lasts.
const WATCH: Duration = Duration::from_millis(200);

/// The objects, shared between the test and the client.
#[derive(Clone, Debug, Default)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Path of the object (without `status`) to the object.
    objects: BTreeMap<String, Value>,
    /// Method and path of every write, in order.
    writes: Vec<(Method, String)>,
    /// Objects that cannot be written.
    refused: Vec<String>,
    /// The next call with a `continue` token has expired.
    forgets: bool,
    /// Most objects in one list.
    largest: usize,
    /// Collections that can be listed and not watched.
    unwatchable: Vec<String>,
    /// No call is answered any more.
    vanished: bool,
    /// Every call fails.
    broken: bool,
    /// Of so many writes one is carried out and not answered.
    loses: Option<usize>,
    /// Reads of each object.
    reads: BTreeMap<String, usize>,
    /// Those that were not of its metadata alone.
    whole_reads: BTreeMap<String, usize>,
    /// Collections in which nothing may be created, and what says so.
    uncreatable: BTreeMap<String, StatusCode>,
    /// Statuses of what is created in a collection, which answers and stores nothing.
    judged: BTreeMap<String, Value>,
    /// The watch events of a path, for every watcher.
    texts: BTreeMap<String, String>,
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let api = self.clone();
        Client::new(
            tower::service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            }),
            "default",
        )
    }

    /// One whose every call takes a while.
    pub fn slow_client(&self, each: Duration) -> Client {
        let api = self.clone();
        Client::new(
            tower::service_fn(move |request| {
                let api = api.clone();
                async move {
                    tokio::time::sleep(each).await;
                    Ok::<_, Infallible>(api.answer(request).await)
                }
            }),
            "default",
        )
    }

    /// The next list that goes on is answered with 410.
    pub fn forget_a_list(&self) {
        self.state.lock().forgets = true;
    }

    pub fn largest_list(&self) -> usize {
        self.state.lock().largest
    }

    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(path.to_owned(), object);
    }

    pub fn read(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// Every object whose path begins so.
    pub fn below(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock();
        let found = state.objects.iter().filter(|(at, _)| at.starts_with(path));
        found.map(|(_, object)| object.clone()).collect()
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().objects.remove(path);
    }

    /// From now on the object can be read and not written.
    pub fn refuse(&self, path: &str) {
        self.state.lock().refused.push(path.to_owned());
    }

    /// From now on the collection can be listed and not watched.
    pub fn refuse_watches(&self, path: &str) {
        self.state.lock().unwatchable.push(path.to_owned());
    }

    /// While this is so, calls wait for ever, also those that were made meanwhile.
    pub fn vanish(&self, vanished: bool) {
        self.state.lock().vanished = vanished;
    }

    /// From now on each `every`th write is carried out, and answered with an error; none with 0.
    pub fn lose_answers(&self, every: usize) {
        self.state.lock().loses = Some(every).filter(|every| *every > 0);
    }

    /// From now on every call fails.
    pub fn break_down(&self) {
        self.state.lock().broken = true;
    }

    /// How often the object was read.
    pub fn reads(&self, path: &str) -> usize {
        self.state
            .lock()
            .reads
            .get(path)
            .copied()
            .unwrap_or_default()
    }

    /// How often more of the object was read than its metadata.
    pub fn whole_reads(&self, path: &str) -> usize {
        let state = self.state.lock();
        state.whole_reads.get(path).copied().unwrap_or_default()
    }

    /// Whether anything may be created in a collection.
    pub fn allow_creation(&self, collection: &str, allowed: bool) {
        if allowed {
            self.state.lock().uncreatable.remove(collection);
        } else {
            self.refuse_creation(collection, StatusCode::FORBIDDEN);
        }
    }

    /// From now on whatever is created in a collection is answered with this status.
    pub fn refuse_creation(&self, collection: &str, status: StatusCode) {
        let uncreatable = &mut self.state.lock().uncreatable;
        uncreatable.insert(collection.to_owned(), status);
    }

    /// From now on a collection answers what is created there with this status, and keeps
    /// nothing of it.
    pub fn judge(&self, collection: &str, status: Value) {
        let mut state = self.state.lock();
        state.judged.insert(collection.to_owned(), status);
    }

    /// From now on a watch of this path receives these lines, and then nothing more.
    pub fn put_lines(&self, path: &str, lines: &[Value]) {
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.state.lock().texts.insert(path.to_owned(), lines);
    }

    pub fn writes(&self) -> Vec<(Method, String)> {
        self.state.lock().writes.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let (path, part) = match path.strip_suffix("/status") {
            Some(path) => (path.to_owned(), Part::Status),
            None => (path.to_owned(), Part::Object),
        };
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let bytes = body.collect_bytes().await.unwrap_or_default();
        let sent: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let vanished = self.state.lock().vanished;
        if vanished {
            std::future::pending::<()>().await;
        }
        // Else a watcher would ask again without a pause, and paused time stand still.
        if query.contains("watch=true") {
            tokio::time::sleep(WATCH).await;
        }
        let mut state = self.state.lock();
        if state.broken {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        if parts.method == Method::GET {
            *state.reads.entry(path.clone()).or_default() += 1;
            if asks_for_metadata(&parts.headers) && !query.contains("watch=true") {
                return state.get_metadata(&path);
            }
            *state.whole_reads.entry(path.clone()).or_default() += 1;
            if query.contains("watch=true") && state.unwatchable.contains(&path) {
                return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
            }
        }
        if parts.method != Method::GET {
            state.writes.push((parts.method.clone(), path.clone()));
            let uncreatable = state.uncreatable.get(&path).copied();
            if let Some(status) = uncreatable.filter(|_| parts.method == Method::POST) {
                return failure(status, status.canonical_reason().unwrap_or_default());
            }
            if state.refused.contains(&path) {
                return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
            }
        }
        let answer = match parts.method {
            Method::GET => state.get(&path, &query),
            Method::POST => state.create(&path, sent),
            Method::PUT => state.replace(&path, part, sent),
            Method::PATCH => {
                let kind = parts.headers.get(header::CONTENT_TYPE);
                let kind = kind.and_then(|kind| kind.to_str().ok());
                state.patch(&path, part, &sent, PatchKind::of(kind.unwrap_or_default()))
            }
            Method::DELETE => state.delete(&path),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        };
        state.unless_lost(&parts.method, answer)
    }
}

impl State {
    fn unless_lost(&self, method: &Method, answer: Response<Body>) -> Response<Body> {
        let is_lost = |every: usize| self.writes.len().is_multiple_of(every);
        match method != Method::GET && self.loses.is_some_and(is_lost) {
            true => failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            false => answer,
        }
    }

    fn get(&mut self, path: &str, query: &str) -> Response<Body> {
        let text = self.texts.get(path);
        if let Some(lines) = text.filter(|_| query.contains("watch=true")) {
            return Response::new(Body::from(lines.clone().into_bytes()));
        }
        if let Some(object) = self.objects.get(path) {
            return ok(object);
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        // Names of objects in tests do not end like collections do.
        if !last.ends_with('s') {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        }
        let number = |name: &str| -> Option<usize> {
            let mut pairs = query.split('&');
            pairs.find_map(|pair| pair.strip_prefix(name)?.parse().ok())
        };
        let begin = number("continue=");
        if begin.is_some() && std::mem::take(&mut self.forgets) {
            return failure(StatusCode::GONE, "Expired");
        }
        let (begin, limit) = (begin.unwrap_or(0), number("limit=").unwrap_or(usize::MAX));
        let all: Vec<Value> = self.listed(path, query).into_iter().cloned().collect();
        let items: Vec<&Value> = all.iter().skip(begin).take(limit).collect();
        let end = begin + items.len();
        let next = (end < all.len()).then(|| end.to_string());
        self.largest = self.largest.max(items.len());
        if query.contains("watch=true") {
            // An empty body makes the watcher list again, which is all that tests need.
            return Response::new(Body::empty());
        }
        ok(&json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string(), "continue": next},
            "items": items,
        }))
    }

    fn get_metadata(&self, path: &str) -> Response<Body> {
        match self.objects.get(path) {
            Some(object) => ok(&json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            })),
            None => failure(StatusCode::NOT_FOUND, "NotFound"),
        }
    }

    /// Objects under a collection path, in one namespace or in all of them.
    fn listed(&self, path: &str, query: &str) -> Vec<&Value> {
        let named = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("fieldSelector="))
            .and_then(|selector| selector.strip_prefix("metadata.name%3D"));
        let (group, plural) = path.rsplit_once('/').unwrap_or(("", path));
        self.objects
            .iter()
            .filter(|(at, object)| {
                let in_collection = at
                    .rsplit_once('/')
                    .is_some_and(|(collection, _)| collection == path);
                let in_any_namespace = at.starts_with(&format!("{group}/namespaces/"))
                    && at.rsplit('/').nth(1) == Some(plural);
                (in_collection || in_any_namespace)
                    && named.is_none_or(|name| object["metadata"]["name"] == name)
            })
            .map(|(_, object)| object)
            .collect()
    }

    fn create(&mut self, collection: &str, mut object: Value) -> Response<Body> {
        if let Some(status) = self.judged.get(collection) {
            object["status"] = status.clone();
            return ok(&object);
        }
        self.version += 1;
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = json!(format!("generated-{}", self.version));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{collection}/{name}");
        if self.objects.contains_key(&path) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        ok(&object)
    }

    fn replace(&mut self, path: &str, part: Part, object: Value) -> Response<Body> {
        let Some(existing) = self.objects.get(path) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        if object["metadata"]["resourceVersion"].is_null() && !takes_any_version(path) {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        if is_about_another(&object, existing) {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        let mut object = part.written(path, existing, object);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        ok(&object)
    }

    fn delete(&mut self, path: &str) -> Response<Body> {
        match self.objects.remove(path) {
            Some(object) => ok(&object),
            None => failure(StatusCode::NOT_FOUND, "NotFound"),
        }
    }

    fn patch(&mut self, path: &str, part: Part, patch: &Value, kind: PatchKind) -> Response<Body> {
        let Some(existing) = self.objects.get(path) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        if is_about_another(patch, existing) {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        let mut object = existing.clone();
        if !kind.apply(patch, &mut object) {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        let mut object = part.written(path, existing, object);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        ok(&object)
    }
}

/// What of an object is written.
#[derive(Clone, Copy)]
enum Part {
    Object,
    Status,
}

impl Part {
    /// What becomes of the object that is held, when `requested` is written.
    fn written(self, path: &str, existing: &Value, mut requested: Value) -> Value {
        match self {
            Self::Status => {
                let mut object = existing.clone();
                object["status"] = requested["status"].take();
                object
            }
            // Where the status is a part of its own it is not written with the rest.
            Self::Object if is_custom(path) => {
                if let Some(fields) = requested.as_object_mut() {
                    fields.remove("status");
                    fields.extend(
                        existing
                            .get("status")
                            .map(|status| ("status".to_owned(), status.clone())),
                    );
                }
                requested
            }
            Self::Object => requested,
        }
    }
}

/// Whether nothing but metadata is asked for, and not that of a list.
fn asks_for_metadata(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|kind| {
        let kind = kind.to_str().unwrap_or_default();
        kind.starts_with("application/json;as=PartialObjectMetadata;")
    })
}

/// Whether what is sent names a version or an object other than the one held. Both are
/// conditions, as far as they are there.
fn is_about_another(sent: &Value, existing: &Value) -> bool {
    ["resourceVersion", "uid"].into_iter().any(|field| {
        let requested = &sent["metadata"][field];
        !requested.is_null() && *requested != existing["metadata"][field]
    })
}

/// Whether an object may be replaced without saying which version of it. Kinds of
/// CustomResourceDefinitions may not, and Leases; Secrets and NetworkPolicies may.
fn takes_any_version(path: &str) -> bool {
    !is_custom(path) && !path.starts_with("/apis/coordination.k8s.io/")
}

/// Whether a CustomResourceDefinition defines the kind.
fn is_custom(path: &str) -> bool {
    path.starts_with("/apis/") && path.contains(".smi-spec.io/")
}

fn ok(object: &Value) -> Response<Body> {
    Response::new(Body::from(object.to_string().into_bytes()))
}

fn failure(code: StatusCode, reason: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests;
