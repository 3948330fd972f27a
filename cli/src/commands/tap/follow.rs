//! Follows a tap over many streams of the API, one after the other.
//!
//! Each stream ends after a while, and the next is authorized anew, at once. It also ends at once
//! if no proxy can be reached; a stream that broke was cut by a controller that may need a moment:
//! then the next is requested after a longer pause each time. The same applies to a workload that
//! has no pod between two rollouts.

use std::time::Duration;

use crds::observe::{LIVE, Resource, TapLine};
use futures::StreamExt as _;
use futures::stream::{self, LocalBoxStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::cluster::names::Named;
use crate::cluster::response::Lines;
use crate::cluster::{Cluster, Refusal};
use crate::failure::Failure;
use crate::traffic::known;

/// From one stream to the next at least, and from one that broke.
const PAUSE: Duration = Duration::from_secs(1);
/// The same after several that ended at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Max age of a stream: controllers end it after 50 s, and API servers cut it after 60 s. This is
/// the only end of a connection that is lost silently.
const LONGEST_STREAM: Duration = Duration::from_secs(75);

/// An event of a tap.
#[derive(Debug)]
pub(crate) enum TapEvent {
    /// A stream has started: the counts of its lines start anew.
    Started,
    /// A line of it.
    Line(Box<TapLine>),
    /// Why no request is reported for a moment.
    Word(String),
}

/// Yields until requests cannot be watched any longer; the failure is the last item.
pub(crate) type Requests = LocalBoxStream<'static, Result<TapEvent, Failure>>;

/// Requests of the cluster's namespace that fit `query`, which has these names. A tap that worked
/// before survives controllers that are away for a moment.
pub(crate) fn follow(cluster: Cluster, query: &str, names: Vec<Named>) -> Requests {
    let namespace = cluster.namespace();
    let path = Resource::Taps.path(Some(namespace), Some(LIVE));
    let now = Instant::now();
    let follower = Follower {
        what: format!("taps of {namespace}"),
        path: format!("{path}?{query}"),
        names,
        cluster,
        lines: None,
        worked: false,
        in_order: false,
        started: now,
        again: now,
        pause: PAUSE,
    };
    stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        let event = follower.next().await;
        let left = event.is_ok().then_some(follower);
        Some((event, left))
    })
    .boxed_local()
}

/// See the module header.
struct Follower {
    cluster: Cluster,
    what: String,
    path: String,
    /// What was typed.
    names: Vec<Named>,
    /// What is left of the stream.
    lines: Option<Lines>,
    /// A stream has started before.
    worked: bool,
    /// The last line announced that its stream ends with it.
    in_order: bool,
    /// When the stream was requested, and when the next may be.
    started: Instant,
    again: Instant,
    pause: Duration,
}

impl Follower {
    async fn next(&mut self) -> Result<TapEvent, Failure> {
        loop {
            let Some(lines) = &mut self.lines else {
                sleep_until(self.again).await;
                return self.begin().await;
            };
            let cut = match timeout_at(self.started + LONGEST_STREAM, lines.next()).await {
                Ok(Ok(Some(line))) => return self.line(&line),
                Ok(Ok(None)) => {
                    self.ended();
                    continue;
                }
                Ok(Err(cut)) => cut.to_string(),
                Err(_) => format!("{}: no controller reports requests any more", self.what),
            };
            // This controller is gone, and another one may respond.
            self.in_order = false;
            self.ended();
            return Ok(TapEvent::Word(cut));
        }
    }

    async fn begin(&mut self) -> Result<TapEvent, Failure> {
        self.started = Instant::now();
        self.in_order = false;
        match self.cluster.lines(&self.what, &self.path).await {
            Ok(lines) => {
                self.worked = true;
                self.lines = Some(lines);
                Ok(TapEvent::Started)
            }
            Err(refusal) if self.worked && refusal.may_pass_again() => {
                self.ended();
                Ok(TapEvent::Word(refusal.into_failure().to_string()))
            }
            Err(refusal) => Err(self.refused(refusal).await),
        }
    }

    /// Why nothing can be watched. A tap knows only pods with a proxy, so whether the typed names
    /// exist is checked as in other commands.
    async fn refused(&self, refusal: Refusal) -> Failure {
        let of_names = !self.worked && matches!(refusal.code(), Some(400 | 404));
        if of_names && let Some(wrong) = known::wrong(&self.cluster, &self.names).await {
            return wrong;
        }
        refusal.into_failure()
    }

    fn line(&mut self, line: &[u8]) -> Result<TapEvent, Failure> {
        let line: TapLine = serde_json::from_slice(line)
            .map_err(|error| Failure::unknown(format!("a line of the tap: {error}")))?;
        let metadata = line.metadata.as_ref();
        self.in_order = metadata.is_some_and(|metadata| metadata.last);
        Ok(TapEvent::Line(Box::new(line)))
    }

    fn ended(&mut self) {
        self.lines = None;
        let ended = if self.in_order {
            self.started
        } else {
            Instant::now()
        };
        if self.started.elapsed() > PAUSE {
            self.pause = PAUSE;
        }
        self.again = ended + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use bytes::Bytes;
    use clap::Parser as _;
    use http::{Request, Response, StatusCode};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::sleep;

    use super::*;
    use crate::args::Cli;

    const PATH: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/taps/live";

    /// A server with these responses, in this order: a status, and lines with the seconds before
    /// each.
    fn cluster(answers: Vec<(u16, Vec<(u64, Value)>)>) -> Cluster {
        let mut answers = VecDeque::from(answers);
        let service = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri().path(), PATH);
            let (code, lines) = answers.pop_front().expect("asked too often");
            let lines = stream::iter(lines).then(|(wait, line)| async move {
                sleep(Duration::from_secs(wait)).await;
                let line = Bytes::from(format!("{line}\n"));
                Ok::<_, Infallible>(Frame::data(line))
            });
            let mut answer = Response::new(StreamBody::new(lines));
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
        Cluster::of(Client::new(service, "shop"), &global)
    }

    fn status(code: u16, message: &str) -> Value {
        json!({"kind": "Status", "status": "Failure", "code": code, "message": message})
    }

    // Claims: observe-134
    #[tokio::test(start_paused = true)]
    async fn completed_tap_stream_reconnects_immediately_and_broken_after_pause() {
        let request = json!({"request": {"method": "GET", "path": "/items"}});
        let last = json!({"metadata": {"matched": 1, "shown": 1, "last": true}});
        let denied = "eve cannot create resource \"taps\" in API group \"observe.weft.dev\"";
        let cluster = cluster(vec![
            (200, vec![(0, request.clone()), (50, last)]),
            (200, vec![(20, request.clone())]),
            (503, vec![(0, status(503, "no endpoints"))]),
            (200, vec![(0, request)]),
            (403, vec![(0, status(403, denied))]),
        ]);
        let started = Instant::now();
        let mut events = follow(cluster, "watch=true&of=Deployment/web", Vec::new());
        let mut seen = Vec::new();
        let failure = loop {
            let what = match events.next().await.unwrap() {
                Ok(TapEvent::Started) => "started".to_owned(),
                Ok(TapEvent::Line(line)) if line.request.is_some() => "request".to_owned(),
                Ok(TapEvent::Line(_)) => "last".to_owned(),
                Ok(TapEvent::Word(word)) => word,
                Err(failure) => break failure,
            };
            seen.push((started.elapsed().as_secs(), what));
            assert!(seen.len() < 20, "it never ends: {seen:?}");
        };
        let words: Vec<&str> = seen.iter().map(|(_, what)| what.as_str()).collect();
        let at: Vec<u64> = seen.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [0, 0, 50, 50, 70, 71, 73, 73], "{words:?}");
        assert_eq!(
            words[..5],
            ["started", "request", "last", "started", "request"],
            "no second without a tap"
        );
        assert!(
            words[5].contains("no controller of Weft answers"),
            "{words:?}"
        );
        assert_eq!(words[6..], ["started", "request"]);
        assert_eq!(started.elapsed().as_secs(), 77, "longer each time");
        assert!(
            failure.to_string().contains("ClusterRole weft-tap"),
            "{failure}"
        );
        assert!(events.next().await.is_none(), "a failure is the end");
    }

    #[tokio::test(start_paused = true)]
    async fn silently_lost_tap_stream_is_reopened() {
        let request = json!({"request": {"method": "GET", "path": "/items"}});
        let denied = "eve cannot create resource \"taps\" in API group \"observe.weft.dev\"";
        let cluster = cluster(vec![
            (200, vec![(3_600, request)]),
            (403, vec![(0, status(403, denied))]),
        ]);
        let started = Instant::now();
        let mut events = follow(cluster, "watch=true&of=Deployment/web", Vec::new());
        let mut words = Vec::new();
        while let Ok(event) = events.next().await.unwrap() {
            if let TapEvent::Word(word) = event {
                words.push((started.elapsed().as_secs(), word));
            }
        }
        let expected = "taps of shop: no controller reports requests any more".to_owned();
        assert_eq!(words, [(75, expected)]);
        assert_eq!(started.elapsed().as_secs(), 76);
    }

    /// The API's response for an object without a pod with a proxy.
    fn without_pods() -> Value {
        let details = json!({"name": "Deployment/web", "kind": "taps"});
        let mut refusal = status(404, "no pod with a proxy is of Deployment/web");
        refusal["reason"] = json!("NotFound");
        refusal["details"] = details;
        refusal
    }

    // Claims: observe-135
    #[tokio::test(start_paused = true)]
    async fn tap_waits_for_workload_temporarily_without_pods() {
        let request = json!({"request": {"method": "GET", "path": "/items"}});
        let filter = "parameter to: no pod with a proxy is of Deployment/cart";
        let answers = vec![
            (200, vec![(0, request.clone())]),
            (404, vec![(0, without_pods())]),
            (400, vec![(0, status(400, filter))]),
            (200, vec![(0, request)]),
            // The API is not served any more.
            (404, vec![(0, status(404, "page not found"))]),
        ];
        let mut events = follow(cluster(answers), "watch=true", Vec::new());
        let mut seen = Vec::new();
        let failure = loop {
            match events.next().await.unwrap() {
                Ok(TapEvent::Word(word)) => seen.push(word),
                Ok(TapEvent::Line(_)) => seen.push("request".to_owned()),
                Ok(TapEvent::Started) => {}
                Err(failure) => break failure,
            }
            assert!(seen.len() < 20, "it never ends: {seen:?}");
        };
        let words: Vec<&str> = seen.iter().map(String::as_str).collect();
        assert_eq!(
            words,
            [
                "request",
                "taps of shop: no pod with a proxy is of Deployment/web",
                format!("taps of shop: {filter}").as_str(),
                "request",
            ]
        );
        assert!(failure.to_string().contains("observe.enabled"), "{failure}");
    }
}
