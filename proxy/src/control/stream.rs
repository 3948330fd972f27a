//! The control stream: sends Hello, receives batches, sends reports.
//!
//! Configuration never expires: while no controller answers, the last snapshot serves.
//!
//! Claims: observe-104

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{PollNext, Stream, select_with_strategy};
use identity::tls::{self, H2_ALPN};
use identity::verify::AuthorityId;
use runtime::backoff::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use wire::capability::Capabilities;
use wire::v1;
use wire::v1::control_client::ControlClient;
use wire::v1::to_proxy::Message as ToProxy;

use crate::config::store::Store;
use crate::config::vouched::Distrusted;
use crate::control::breaker_reports::{self, BreakerReports};
use crate::control::early_reports;
use crate::control::leaving::Contact;
use crate::control::live_queries::OpenQuestions;
use crate::control::refusal::Flag;
use crate::control::status::{self, LastSent};
use crate::control::{BACKOFF_FIRST, BACKOFF_LONGEST, BoxError, Control};
use crate::telemetry::startup::StartupStep;

/// Messages to the controller that wait to be sent; more than a handful means
/// that the stream is dead, and it is opened anew.
const OUTBOX: usize = 64;
/// Reports that wait to be sent; others wait where they are kept.
const REPORTS: usize = 4;
/// Largest batch: 10 000 endpoints are about 1 MiB.
const MESSAGE_LIMIT: usize = 32 * 1024 * 1024;

/// How soon a stream ends whose controller is no longer trusted.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// How often idle destinations are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(60);

pub(crate) fn names(addrs: &HashSet<SocketAddr>) -> Vec<String> {
    addrs
        .iter()
        .map(|addr| wire::names::destination(addr.ip(), addr.port()))
        .collect()
}

const fn from_proxy(message: v1::from_proxy::Message) -> v1::FromProxy {
    v1::FromProxy {
        message: Some(message),
    }
}

/// What the proxy subscribes to.
struct Subscribed {
    addrs: HashSet<SocketAddr>,
    /// Of hosts outside the mesh: names of their endpoints resources.
    hosts: HashSet<Arc<str>>,
}

impl Subscribed {
    fn wanted(config: &Store) -> Self {
        Self {
            addrs: config.subscriptions(),
            hosts: config.names.all(),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names = names(&self.addrs);
        names.extend(self.hosts.iter().map(ToString::to_string));
        names
    }

    /// What it has beyond `other`.
    fn beyond(&self, other: &Self) -> Vec<String> {
        let beyond = Self {
            addrs: self.addrs.difference(&other.addrs).copied().collect(),
            hosts: self.hosts.difference(&other.hosts).cloned().collect(),
        };
        beyond.names()
    }
}

/// What goes to the controller. Messages go before reports: the controller dates reports by the
/// clock that the proxy sends first.
fn outgoing(
    messages: mpsc::Receiver<v1::FromProxy>,
    reports: mpsc::Receiver<v1::Report>,
) -> impl Stream<Item = v1::FromProxy> {
    let reports = ReceiverStream::new(reports)
        .map(|report| from_proxy(v1::from_proxy::Message::Report(report)));
    let messages_first = |(): &mut ()| PollNext::Left;
    select_with_strategy(ReceiverStream::new(messages), reports, messages_first)
}

/// Returns when another certificate or a bundle of roots has come.
async fn replaced(certified: &mut watch::Receiver<bool>, bundles: &mut watch::Receiver<Duration>) {
    let changed = tokio::select! {
        changed = certified.changed() => changed,
        changed = bundles.changed() => changed,
    };
    if changed.is_err() {
        // The sender has ended.
        std::future::pending::<()>().await;
    }
}

impl Control {
    pub(super) async fn keep_streaming(
        &self,
        mut certified: watch::Receiver<bool>,
        configured: watch::Sender<bool>,
        contact: &watch::Sender<Contact>,
        unknown_authority: &Flag,
    ) {
        if certified.wait_for(|certified| *certified).await.is_err() {
            return;
        }
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        loop {
            let ended = self
                .stream(
                    &mut certified,
                    &configured,
                    contact,
                    &mut backoff,
                    unknown_authority,
                )
                .await;
            self.config.telemetry.metrics.control_connected.set(0);
            breaker_reports::lost(&self.config);
            contact.send_modify(|contact| contact.streaming = false);
            match ended {
                // The controller ends streams now and then, so that replicas share them.
                Ok(()) => tracing::debug!("the controller ended the stream, opening another"),
                Err(error) => tracing::info!(%error, "no stream from the controller, trying again"),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    pub(super) async fn stream(
        &self,
        certified: &mut watch::Receiver<bool>,
        configured: &watch::Sender<bool>,
        contact: &watch::Sender<Contact>,
        backoff: &mut Backoff,
        unknown_authority: &Flag,
    ) -> Result<(), BoxError> {
        let config = tls::mesh_client_config(
            &self.roots,
            &self.certs,
            self.controller.identity.clone(),
            &[H2_ALPN],
        );
        let (alerted, shown) = (Some(Arc::clone(&self.refused)), self.certs.current());
        let (channel, authority) = self
            .channel(config, contact, Some(unknown_authority), alerted)
            .await?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (reports, reported) = mpsc::channel(REPORTS);
        let mut subscribed = Subscribed::wanted(&self.config);
        let hello = v1::from_proxy::Message::Hello(self.hello(&subscribed));
        outbox.try_send(from_proxy(hello))?;
        let mut client = ControlClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        let mut live_queries = OpenQuestions::new(self, client.clone());
        let mut batches = client
            .stream(outgoing(messages, reported))
            .await
            .map_err(|status| self.refusal("refused a stream", &status, shown.as_deref()))?
            .into_inner();
        self.reached(StartupStep::Stream);
        let mut reports = std::pin::pin!(self.report(reports, outbox.clone()));
        let mut distrusted = std::pin::pin!(self.until_distrusted(&authority));
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        let mut looks = tokio::time::interval(status::LOOK_EVERY);
        let mut last_sent = LastSent::default();
        let mut draining = self.draining.clone();
        let mut bundles = self.renew_within.subscribe();
        let mut breaker_reports = BreakerReports::begin(&self.config);
        // Before any report.
        self.send_status(&outbox, &mut last_sent)?;
        loop {
            tokio::select! {
                message = batches.message() => {
                    let Some(message) = message.map_err(|status| self.refusal("ended the stream", &status, shown.as_deref()))? else { return Ok(()) };
                    let batch = match message.message {
                        Some(ToProxy::Batch(batch)) => batch,
                        Some(ToProxy::Ask(ask)) => {
                            live_queries.begin(ask);
                            continue;
                        }
                        Some(ToProxy::EndAsk(id)) => {
                            live_queries.end(id);
                            continue;
                        }
                        Some(ToProxy::Steer(fleet_states)) => {
                            breaker_reports::apply_fleet_states(&self.config, &fleet_states);
                            continue;
                        }
                        Some(ToProxy::Grants(grants)) => {
                            self.config.grant(&grants);
                            continue;
                        }
                        Some(ToProxy::Shares(shares)) => {
                            let taken = self.config.share(shares);
                            let taken = v1::from_proxy::Message::SharesTaken(taken);
                            outbox.try_send(from_proxy(taken))?;
                            continue;
                        }
                        None => continue,
                    };
                    outbox.try_send(self.take(batch))?;
                    self.config.telemetry.metrics.control_connected.set(1);
                    contact.send_if_modified(|contact| {
                        contact.unreachable = false;
                        !std::mem::replace(&mut contact.streaming, true)
                    });
                    backoff.reset();
                    if self.config.snapshot().is_complete() {
                        self.reached(StartupStep::Configuration);
                        configured.send_if_modified(|configured| !std::mem::replace(configured, true));
                    }
                }
                () = self.config.subscriptions_changed.notified() => {
                    self.subscribe(&outbox, &mut subscribed)?;
                }
                _ = tidy.tick() => self.subscribe(&outbox, &mut subscribed)?,
                _ = looks.tick() => self.send_status(&outbox, &mut last_sent)?,
                // A rotation waits for this.
                () = replaced(certified, &mut bundles) => self.send_status(&outbox, &mut last_sent)?,
                () = &mut distrusted => return Err(Distrusted.into()),
                // A deleted pod may not live until the next look.
                () = status::deleted(&mut draining), if !last_sent.is_draining() => {
                    self.send_status(&outbox, &mut last_sent)?;
                }
                () = breaker_reports.due(&self.config) => self.send_breaker_reports(&outbox, &mut breaker_reports)?,
                () = &mut reports => return Err("the stream takes no reports".into()),
            }
        }
    }

    /// The first message of a stream.
    fn hello(&self, subscribed: &Subscribed) -> v1::Hello {
        let snapshot = self.config.snapshot();
        let mut held = snapshot.resource_versions();
        let trusted = self.roots.certificates();
        let sent = &snapshot.roots;
        let is_same = trusted.len() == sent.len()
            && trusted
                .iter()
                .zip(sent)
                .all(|(used, sent)| **used == **sent);
        // A certificate has brought other ones since, as of a replica that lagged. The controller
        // sends its bundle again, so that they do not stay.
        if !is_same {
            held.remove(wire::names::BUNDLE);
        }
        v1::Hello {
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            held,
            destinations: subscribed.names(),
            capabilities: Capabilities::of_this_version(),
        }
    }

    /// Returns when the controller's certificate is of an authority that is no longer trusted, at a
    /// time by chance: the streams of all proxies end for this reason.
    async fn until_distrusted(&self, authority: &AuthorityId) {
        let refused = self
            .config
            .until_refused(|now| now.vouched.check(authority));
        refused.await;
        sleep(LEAVE_WITHIN.mul_f64(rand::random())).await;
    }

    /// Sends what was counted, once the controller has answered: the first message of a stream is
    /// Hello.
    async fn report(&self, reports: mpsc::Sender<v1::Report>, outbox: mpsc::Sender<v1::FromProxy>) {
        let telemetry = &self.config.telemetry;
        tokio::select! {
            () = telemetry.reports.feed(reports) => {}
            () = early_reports::feed(telemetry, outbox) => {}
        }
    }

    /// Sends the status of this proxy, where that changed.
    fn send_status(
        &self,
        outbox: &mpsc::Sender<v1::FromProxy>,
        last_sent: &mut LastSent,
    ) -> Result<(), BoxError> {
        if let Some(status) = last_sent.next(self.status(), Instant::now()) {
            outbox.try_send(from_proxy(v1::from_proxy::Message::Status(status)))?;
        }
        Ok(())
    }

    /// Sends the breaker report, and the load of limits of the own Service.
    fn send_breaker_reports(
        &self,
        outbox: &mpsc::Sender<v1::FromProxy>,
        breaker_reports: &mut BreakerReports,
    ) -> Result<(), BoxError> {
        if let Some(breaker_report) = breaker_reports::take(&self.config) {
            outbox.try_send(from_proxy(v1::from_proxy::Message::Pulse(breaker_report)))?;
        }
        if let Some(loads) = breaker_reports.offered(&self.config) {
            let loads = v1::from_proxy::Message::OfferedLoads(loads);
            outbox.try_send(from_proxy(loads))?;
        }
        Ok(())
    }

    /// Applies a batch and returns the result.
    pub(super) fn take(&self, batch: v1::Batch) -> v1::FromProxy {
        let id = batch.id;
        let brings_roots = batch
            .set
            .iter()
            .any(|resource| resource.name == wire::names::BUNDLE);
        let nacks = self.config.apply(batch);
        for nack in &nacks {
            tracing::warn!(
                resource = nack.name,
                reason = nack.reason,
                "kept the former version of a resource"
            );
        }
        if brings_roots {
            let snapshot = self.config.snapshot();
            self.trust(snapshot.roots.clone(), snapshot.renew_within);
        }
        from_proxy(v1::from_proxy::Message::Ack(v1::Ack { batch: id, nacks }))
    }

    fn subscribe(
        &self,
        outbox: &mpsc::Sender<v1::FromProxy>,
        subscribed: &mut Subscribed,
    ) -> Result<(), BoxError> {
        let wanted = Subscribed::wanted(&self.config);
        let change = v1::Subscribe {
            add: wanted.beyond(subscribed),
            remove: subscribed.beyond(&wanted),
        };
        if change.add.is_empty() && change.remove.is_empty() {
            return Ok(());
        }
        outbox.try_send(from_proxy(v1::from_proxy::Message::Subscribe(change)))?;
        *subscribed = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wire::v1::from_proxy::Message;

    use super::*;

    #[test]
    fn queried_hosts_are_subscribed_beside_addresses() {
        let subscribed = |addrs: &[SocketAddr], host: &str| Subscribed {
            addrs: addrs.iter().copied().collect(),
            hosts: HashSet::from([Arc::from(host)]),
        };
        let before = subscribed(&[], "external/a.pay.example:443");
        let at = SocketAddr::from(([10, 0, 0, 1], 80));
        let after = subscribed(&[at], "external/b.pay.example:443");
        let added = ["destination/10.0.0.1:80", "external/b.pay.example:443"];
        assert_eq!(after.beyond(&before), added);
        assert_eq!(before.beyond(&after), ["external/a.pay.example:443"]);
    }

    #[tokio::test]
    async fn proxy_status_is_sent_before_reports() {
        let (outbox, messages) = mpsc::channel(8);
        let (reports, reported) = mpsc::channel(8);
        for _ in 0..3 {
            reports.try_send(v1::Report::default()).unwrap();
            let status = Message::Status(v1::ProxyStatus::default());
            outbox.try_send(from_proxy(status)).unwrap();
        }
        let sent = outgoing(messages, reported).take(6);
        let sent: Vec<v1::FromProxy> = sent.collect().await;
        let order = sent.iter().map(|one| match one.message {
            Some(Message::Status(_)) => "status",
            Some(Message::Report(_)) => "report",
            _ => "other",
        });
        let order: Vec<&str> = order.collect();
        assert_eq!(order, [["status"; 3], ["report"; 3]].concat());
    }
}
