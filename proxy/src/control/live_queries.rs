//! Live queries: responds to queries of a controller while a user waits for the result.
//!
//! Queries arrive on the control stream. Results are sent by another call on the same connection,
//! so that a flood of them delays no acknowledgement. Each query is a task: it ends when the
//! controller ends it, when its time is over, and with the stream. The data path never waits for
//! it, and the call for results is made with the first query.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use wire::v1;
use wire::v1::answered::What as Answer;
use wire::v1::ask::What as Question;
use wire::v1::control_client::ControlClient;

use crate::config::dry_run::Running;
use crate::config::snapshot::Summary;
use crate::control::Control;
use crate::telemetry::tap::Watch;

/// Queries that run at one time. A client watches each of them.
const MAX_OPEN: usize = 8;
/// Responses that wait to be sent; a query whose response finds no place waits.
const QUEUE: usize = 256;
/// The max time of one query, whatever the controller requests.
const LONGEST: Duration = Duration::from_secs(600);
/// Between two summaries of a tap, and between two looks at the counts of a dry run.
const SUMMARY_EVERY: Duration = Duration::from_secs(1);
/// Requests that are shown wait so long for others, or until so many wait that there is
/// hardly room.
const BATCHED_WITHIN: Duration = Duration::from_millis(100);
/// Bytes of the resources in one part of what is held. The controller takes messages of
/// 32 KiB.
const PART: usize = 24 * 1024;
/// Parts of one answer: about 4 MiB. 2 000 rules and 4 096 destinations are below 1 MiB.
const MAX_PARTS: usize = 170;

/// The queries of one stream. Dropped with it.
pub(super) struct OpenQuestions<'a> {
    control: &'a Control,
    client: ControlClient<Channel>,
    /// By id. Also such as have completed, until the next look.
    open: BTreeMap<u64, AbortHandle>,
    /// Where responses go, once there was a query.
    answers: Option<mpsc::Sender<v1::Answered>>,
    /// One for each query, and one for the call that carries the responses.
    tasks: JoinSet<()>,
}

impl<'a> OpenQuestions<'a> {
    /// None so far; answers go to the controller of this client.
    pub(super) fn new(control: &'a Control, client: ControlClient<Channel>) -> Self {
        Self {
            control,
            client,
            open: BTreeMap::new(),
            answers: None,
            tasks: JoinSet::new(),
        }
    }

    /// Begins to answer a query, or sends why not.
    pub(super) fn begin(&mut self, ask: v1::Ask) {
        let v1::Ask { id, lasts, what } = ask;
        let answers = self.answers();
        self.forget_ended();
        let refuse = |why: &str| {
            let why = Answer::Refused(why.to_owned());
            // Where no answer finds a place, this one would not be read either.
            let _ = answers.try_send(answered(id, why));
        };
        if self.open.len() >= MAX_OPEN {
            self.control.config.telemetry.metrics.limit("asks");
            return refuse("the proxy answers as many questions as it may at one time");
        }
        match what {
            Some(Question::Config(_)) => {
                let parts = parts(self.control.summary());
                if parts.len() > MAX_PARTS {
                    return refuse("the proxy holds more than an answer may say");
                }
                self.start(
                    id,
                    Duration::from_millis(lasts),
                    send_config(id, parts, answers),
                );
            }
            Some(Question::Tap(tap)) => {
                let (watch, records) = self.control.config.telemetry.taps.watch(tap);
                let showing = show(id, (watch, records), answers);
                self.start(id, Duration::from_millis(lasts), showing);
            }
            Some(Question::Trial(rules)) => match self.control.config.dry_runs.begin(&rules) {
                Ok((running, examples)) => {
                    let reporting = try_rules(id, (running, examples), answers);
                    self.start(id, Duration::from_millis(lasts), reporting);
                }
                Err(why) => refuse(&format!("the proxy does not try these rules: {why}")),
            },
            None => refuse("the proxy is older than this question"),
        }
    }

    /// No client reads the responses to this query any more.
    pub(super) fn end(&mut self, id: u64) {
        if let Some(task) = self.open.remove(&id) {
            task.abort();
        }
        self.forget_ended();
    }

    fn start(
        &mut self,
        id: u64,
        lasts: Duration,
        answering: impl Future<Output = ()> + Send + 'static,
    ) {
        let within = timeout(lasts.min(LONGEST), answering);
        #[expect(clippy::disallowed_methods, reason = "its panic ends one question")]
        let task = self.tasks.spawn(async move {
            // Its time is over, or all was sent.
            let _ = within.await;
        });
        if let Some(before) = self.open.insert(id, task) {
            before.abort();
        }
        self.forget_ended();
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|_, task| !task.is_finished());
        let open = i64::try_from(self.open.len()).unwrap_or(i64::MAX);
        self.control.config.telemetry.metrics.live_queries.set(open);
    }

    /// Where answers go: to one call, made when the first of them is due, and again should
    /// it have ended.
    fn answers(&mut self) -> mpsc::Sender<v1::Answered> {
        if let Some(answers) = self.answers.as_ref().filter(|queue| !queue.is_closed()) {
            return answers.clone();
        }
        let (answers, queue) = mpsc::channel(QUEUE);
        let mut client = self.client.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "its panic closes the queue, and the next answer makes another"
        )]
        self.tasks.spawn(async move {
            if let Err(status) = client.answer(ReceiverStream::new(queue)).await {
                tracing::debug!(reason = status.message(), "the controller takes no answers");
            }
        });
        self.answers = Some(answers.clone());
        answers
    }
}

impl Drop for OpenQuestions<'_> {
    fn drop(&mut self) {
        self.control.config.telemetry.metrics.live_queries.set(0);
    }
}

impl Control {
    fn summary(&self) -> Summary {
        let draining = *self.draining.borrow();
        Summary::of(&self.config.snapshot(), &self.identity, draining)
    }
}

const fn answered(id: u64, what: Answer) -> v1::Answered {
    v1::Answered {
        id,
        what: Some(what),
    }
}

async fn send_config(id: u64, parts: Vec<v1::HeldConfig>, answers: mpsc::Sender<v1::Answered>) {
    for part in parts {
        if answers
            .send(answered(id, Answer::Config(part)))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Shows the requests of a tap, and how many there were. Those that end within
/// [`BATCHED_WITHIN`] go together: one by one each would cost a write and its encryption.
async fn show(
    id: u64,
    (watch, mut records): (Watch, mpsc::Receiver<v1::TapRecord>),
    answers: mpsc::Sender<v1::Answered>,
) {
    let mut summaries = tokio::time::interval(SUMMARY_EVERY);
    loop {
        let first = tokio::select! {
            Some(record) = records.recv() => Answer::Record(record),
            // The first at once: this proxy takes part.
            _ = summaries.tick() => Answer::Summary(watch.summary()),
        };
        if matches!(first, Answer::Record(_)) {
            // Either will do.
            let _ = timeout(BATCHED_WITHIN, watch.half_full()).await;
        }
        let more = std::iter::from_fn(|| records.try_recv().ok()).map(Answer::Record);
        for answer in std::iter::once(first).chain(more.take(QUEUE)) {
            if answers.send(answered(id, answer)).await.is_err() {
                return;
            }
        }
    }
}

/// Sends the results of a dry run.
async fn try_rules(
    id: u64,
    (running, mut examples): (Running, mpsc::Receiver<v1::TrialExample>),
    answers: mpsc::Sender<v1::Answered>,
) {
    let mut counts = tokio::time::interval(SUMMARY_EVERY);
    loop {
        let ready: Vec<Answer> = tokio::select! {
            Some(example) = examples.recv() => vec![Answer::Example(example)],
            // The first at once: this proxy takes part.
            _ = counts.tick() => running.counts().into_iter().map(Answer::Trial).collect(),
        };
        for what in ready {
            if answers.send(answered(id, what)).await.is_err() {
                return;
            }
        }
    }
}

/// What is held, in parts that messages take.
fn parts(summary: Summary) -> Vec<v1::HeldConfig> {
    let mut parts = vec![v1::HeldConfig {
        identity: summary.identity,
        enforcement: summary.enforcement,
        mtls: summary.mtls,
        draining: summary.draining,
        ..v1::HeldConfig::default()
    }];
    let mut bytes = 0;
    for (name, version) in summary.resources {
        bytes += name.len() + version.len() + 16;
        if bytes > PART {
            bytes = name.len() + version.len() + 16;
            parts.push(v1::HeldConfig {
                part: u32::try_from(parts.len()).unwrap_or(u32::MAX),
                ..v1::HeldConfig::default()
            });
        }
        if let Some(part) = parts.last_mut() {
            part.resources.push(v1::HeldResource { name, version });
        }
    }
    if let Some(part) = parts.last_mut() {
        part.last = true;
    }
    parts
}

#[cfg(test)]
mod tests;
