//! The client of the API server that all commands use, configured by the user's kubeconfig.
//!
//! Every request has a timeout and every error names the request: a command that waits for ever is
//! as useless as one that prints "error".

pub(crate) mod existing;
pub(crate) mod forward;
mod kubeconfig;
pub(crate) mod names;
pub(crate) mod nearest;
pub(crate) mod ports;
mod refusal;
pub(crate) mod response;

use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use crds::observe::Resource;
use kube::Client;
use kube::client::Body;
use kube::config::ExecInteractiveMode;
use kube::core::Status;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use self::response::{Clock, Lines};
use crate::failure::Failure;
use crate::global::{Global, WEFT_NAMESPACE};

/// Longer than the API server's own timeout for requests on our behalf, so that its message about a
/// replica that is away arrives.
const CONNECT_WITHIN: Duration = Duration::from_secs(9);

/// How long a request is retried while a controller is starting up or has no capacity for the
/// response; afterwards another controller may respond.
const STARTUP_WITHIN: Duration = Duration::from_secs(3);
/// Between two requests to it.
const AGAIN: Duration = Duration::from_secs(1);

/// Bytes of a refusal.
const REFUSAL: usize = 64 * 1024;
/// Bytes of any other response. A graph has 28 MiB at most; a list of a large cluster may have
/// more.
pub(crate) const MOST_ANSWER: usize = 256 << 20;

/// A cluster, and where in it the user is.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    named: bool,
    all: bool,
    each: Duration,
    weft: String,
    clock: Clock,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster that the kubeconfig names.
    ///
    /// # Errors
    /// When there is no usable kubeconfig. Whether the API server responds is not known yet.
    pub(crate) async fn connect(global: &Global) -> Result<Self, Failure> {
        Self::made(global, None).await
    }

    /// The same for completion, where the kubeconfig's exec plugin must not prompt: the plugin gets
    /// the non-interactive mode and no input, and its output is not shown.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn connect_unattended(global: &Global) -> Result<Self, Failure> {
        Self::made(global, Some(ExecInteractiveMode::Never)).await
    }

    /// `interaction`: of the plugin, in place of the kubeconfig's.
    async fn made(
        global: &Global,
        interaction: Option<ExecInteractiveMode>,
    ) -> Result<Self, Failure> {
        let mut config = kubeconfig::config(global).await?;
        if interaction.is_some()
            && let Some(exec) = &mut config.auth_info.exec
        {
            exec.interactive_mode = interaction;
        }
        config.connect_timeout = Some(CONNECT_WITHIN.min(global.request_timeout));
        // Commands report failures; they do not retry behind the user's back.
        config.default_retry = false;
        if let Some(user) = &global.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        // Making a client runs the kubeconfig's exec plugin, which may wait for a person or
        // for nothing at all.
        let plugin = config.auth_info.exec.as_ref();
        let plugin = plugin.and_then(|exec| exec.command.clone());
        let making = tokio::task::spawn_blocking(move || Client::try_from(config));
        let made = timeout(global.request_timeout, making).await;
        let client = match made {
            Ok(Ok(Ok(client))) => client,
            Ok(Ok(Err(error))) => {
                return Err(Failure::unknown(format!(
                    "the kubeconfig's credentials cannot be used: {}",
                    refusal::chain(&error)
                )));
            }
            Ok(Err(error)) => return Err(Failure::unknown(format!("no client: {error}"))),
            Err(_) => {
                return Err(Failure::unknown(format!(
                    "{} gave no credentials within {} s; --request-timeout waits longer, as for a \
                     login",
                    plugin.as_deref().unwrap_or("the kubeconfig"),
                    global.request_timeout.as_secs_f32()
                )));
            }
        };
        Ok(Self::of(client, global))
    }

    /// A cluster behind a client that is there already.
    #[must_use]
    pub(crate) fn of(client: Client, global: &Global) -> Self {
        let default = client.default_namespace().to_owned();
        Self {
            namespace: global.namespace.clone().unwrap_or(default),
            named: global.namespace.is_some(),
            all: global.all_namespaces,
            each: global.request_timeout,
            weft: global.weft_namespace.clone(),
            clock: Clock::default(),
            client,
        }
    }

    /// For requests to the API server; within [`Self::try_call`].
    #[must_use]
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace that is meant where none is named.
    #[must_use]
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the user named a namespace; else it is the kubeconfig's.
    #[must_use]
    pub(crate) fn is_named(&self) -> bool {
        self.named
    }

    /// That namespace, or none where all are meant.
    #[must_use]
    pub(crate) fn scope(&self) -> Option<&str> {
        (!self.all).then_some(self.namespace.as_str())
    }

    /// The same as text.
    #[must_use]
    pub(crate) fn scope_label(&self) -> String {
        match self.scope() {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "in any namespace".to_owned(),
        }
    }

    /// The same cluster with another namespace, or with all.
    #[must_use]
    pub(crate) fn about(&self, namespace: Option<&str>) -> Self {
        let mut other = self.clone();
        other.all = namespace.is_none();
        if let Some(namespace) = namespace {
            namespace.clone_into(&mut other.namespace);
        }
        other
    }

    /// The same cluster with this as the max time of each request.
    #[must_use]
    pub(crate) fn within(&self, longest: Duration) -> Self {
        let mut other = self.clone();
        other.each = other.each.min(longest);
        other
    }

    /// Where Weft is installed.
    #[must_use]
    pub(crate) fn weft_namespace(&self) -> &str {
        &self.weft
    }

    /// Whether the user named another namespace of Weft than the default: if that one is missing,
    /// Weft is not installed.
    #[must_use]
    pub(crate) fn is_weft_named(&self) -> bool {
        self.weft != WEFT_NAMESPACE
    }

    /// The time by the cluster's clock, from the last response; this machine's time, `own`, if no
    /// response had one.
    #[must_use]
    pub(crate) fn now(&self, own: SystemTime) -> SystemTime {
        self.clock.now(own)
    }

    /// The longest time for one request.
    #[must_use]
    pub(crate) fn each(&self) -> Duration {
        self.each
    }

    /// Waits for the response about `what`, no longer than a request may take.
    ///
    /// # Errors
    /// When there is no response, or it is a refusal.
    pub(crate) async fn try_call<T>(
        &self,
        what: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        match timeout(self.each, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Refusal::of(what, error)),
            Err(_) => Err(Refusal::late(what, self.each)),
        }
    }

    /// The same with retries while a controller reports that it will respond in a moment.
    async fn call_with_retries<T, F>(&self, what: &str, call: impl Fn() -> F) -> Result<T, Refusal>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let until = Instant::now() + STARTUP_WITHIN;
        loop {
            match self.try_call(what, call()).await {
                Err(refusal) if refusal.passes_in().is_some() && Instant::now() < until => {
                    sleep(AGAIN).await;
                }
                ended => return ended,
            }
        }
    }

    /// Reads what the API server has at `path`.
    ///
    /// # Errors
    /// When there is no response, or it is a refusal: with the role that would grant the right.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
    ) -> Result<T, Failure> {
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(|error| Failure::usage(format!("{what}: {error}")))?;
        let answer = self.try_request(what, request).await;
        answer.map_err(Refusal::into_failure)
    }

    /// The same; the caller distinguishes what is missing from what the user may not see.
    ///
    /// # Errors
    /// As [`Self::try_call`].
    pub(crate) async fn try_read<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
    ) -> Result<T, Refusal> {
        let request = match http::Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return Err(Refusal::of(what, kube::Error::HttpError(error))),
        };
        self.try_request(what, request).await
    }

    /// The response to a request; its time is noted, too.
    ///
    /// # Errors
    /// As [`Self::try_call`].
    pub(crate) async fn try_request<T: DeserializeOwned>(
        &self,
        what: &str,
        request: http::Request<Vec<u8>>,
    ) -> Result<T, Refusal> {
        let call = || {
            let body = self.body_of(request.clone().map(Body::from));
            async move {
                let bytes = whole(body.await?, MOST_ANSWER).await?;
                serde_json::from_slice::<T>(&bytes).map_err(kube::Error::SerdeError)
            }
        };
        self.call_with_retries(what, call).await
    }

    /// Reads what the API server has at `path` as it is, of at most `most` bytes.
    ///
    /// # Errors
    /// As [`Self::try_call`].
    pub(crate) async fn try_read_bytes(
        &self,
        what: &str,
        path: &str,
        most: usize,
    ) -> Result<Bytes, Refusal> {
        let request = match http::Request::get(path).body(Vec::<u8>::new()) {
            Ok(request) => request,
            Err(error) => return Err(Refusal::of(what, kube::Error::HttpError(error))),
        };
        let call = || {
            let body = self.body_of(request.clone().map(Body::from));
            async move { whole(body.await?, most).await }
        };
        self.call_with_retries(what, call).await
    }

    /// Begins to read what the API server streams at `path`, as it comes.
    ///
    /// # Errors
    /// As [`Self::try_call`]. Only the begin has a time limit.
    pub(crate) async fn stream(&self, what: &str, path: &str) -> Result<Body, Refusal> {
        let request = match http::Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return Err(Refusal::of(what, kube::Error::HttpError(error))),
        };
        self.begin(what, &request).await
    }

    /// The same, line by line.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub(crate) async fn lines(&self, what: &str, path: &str) -> Result<Lines, Refusal> {
        let body = self.stream(what, path).await?;
        Ok(Lines::of(what, body))
    }

    /// The same of any request.
    ///
    /// # Errors
    /// As [`Self::try_call`]. Only the begin has a time limit.
    pub(crate) async fn lines_of(
        &self,
        what: &str,
        request: http::Request<Vec<u8>>,
    ) -> Result<Lines, Refusal> {
        let body = self.begin(what, &request).await?;
        Ok(Lines::of(what, body))
    }

    async fn begin(&self, what: &str, request: &http::Request<Vec<u8>>) -> Result<Body, Refusal> {
        let call = || self.body_of(request.clone().map(Body::from));
        self.call_with_retries(what, call).await
    }

    /// The rest of a response that is no refusal.
    async fn body_of(&self, request: http::Request<Body>) -> kube::Result<Body> {
        let answer = self.client.send(request).await?;
        self.clock.note(answer.headers());
        accepted(answer).await
    }

    /// Reads a response of the read API, in `namespace` or in all.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn observe<T: DeserializeOwned>(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        query: &str,
    ) -> Result<T, Failure> {
        let answer = self.try_observe(resource, namespace, name, query).await;
        answer.map_err(Refusal::into_failure)
    }

    /// The same; the caller distinguishes what is missing from what the user may not see.
    ///
    /// # Errors
    /// As [`Self::try_call`].
    pub(crate) async fn try_observe<T: DeserializeOwned>(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        query: &str,
    ) -> Result<T, Refusal> {
        let mut path = resource.path(namespace, name);
        if !query.is_empty() {
            path = format!("{path}?{query}");
        }
        let scope_words =
            namespace.map_or_else(String::new, |namespace| format!(" of {namespace}"));
        let what = format!("{}{scope_words}", resource.plural());
        self.try_read(&what, &path).await
    }
}

/// The body of a response, unless it is a refusal.
pub(crate) async fn accepted(answer: http::Response<Body>) -> kube::Result<Body> {
    let (head, body) = answer.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let bytes = whole(body, REFUSAL).await?;
    let code = head.status.as_u16();
    let status = serde_json::from_slice::<Status>(&bytes).ok();
    // A proxy in between may respond too, with a message of its own or none.
    let mut status = status.unwrap_or_else(|| {
        let words = String::from_utf8_lossy(&bytes);
        Status::failure(words.trim(), "")
    });
    if status.code == 0 {
        status.code = code;
    }
    if head.status.is_redirection() {
        status.message = redirected(&head);
    } else if status.message.is_empty() {
        status.message = format!("status {code}");
    }
    Err(kube::Error::Api(status.boxed()))
}

/// The target of a redirect. It is not followed: the user's credentials are the API server's alone.
fn redirected(head: &http::response::Parts) -> String {
    let place = head.headers.get(http::header::LOCATION);
    let place = place.map_or("elsewhere".into(), |place| {
        String::from_utf8_lossy(place.as_bytes())
    });
    format!(
        "status {} redirects to {place}, which is not followed; `kubectl config view --minify` \
         shows which API server is queried",
        head.status.as_u16()
    )
}

pub(crate) use refusal::Refusal;
pub(crate) use response::whole;
