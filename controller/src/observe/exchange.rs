//! The exchange of reports and acknowledgements between controller replicas.
//!
//! Each connects to all others and listens, so a replica sends when it is called and keeps no list
//! of receivers. Only the controller's own identity may call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use identity::tls::{H2_ALPN, mesh_client_config, peer_name};
use identity::{CertHandle, PeerIdentity, Roots};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use parking_lot::RwLock;
use policy::name::SpiffeId;
use prometheus_client::metrics::gauge::Gauge;
use runtime::backoff::Backoff;
use runtime::stop;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};
use wire::v1;
use wire::v1::replica_client::ReplicaClient;

use super::acknowledged::Observed;
use super::clock_offset::ClockOffset;
use super::early::EarlyCounts;
use super::ended_pods;
use super::live_queries::LiveQueries;
use super::live_queries::replicas::{self, Passed};
use super::reports::Reports;
use crate::fleet::Fleet;
use crate::inventory::Inventory;
use crate::settings::SERVE_PORT;
use crate::shares::ShareRegistry;

/// Changes within this time travel together.
const SETTLE: Duration = Duration::from_millis(20);
/// Messages on their way to a peer; a slow peer makes this replica wait and then
/// gets the newest.
const OUTBOX: usize = 4;
/// Replicas that are listened to. A control plane has a handful.
const MAX_PEERS: usize = 32;
/// From dialling to the end of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages have about 1 MiB, and a single proxy's part never more than 4 MiB; replicas
/// of the version before made larger ones.
pub(crate) const MAX_RECEIVED: usize = 64 * 1024 * 1024;

/// What a calling replica is sent.
pub(crate) type ObservedStream = ReceiverStream<Result<v1::Observed, Status>>;
/// What a calling replica is sent of the proxies' reports.
pub(crate) type ReportStream = ReceiverStream<Result<v1::Reports, Status>>;

/// Answers other replicas.
#[derive(Clone, Debug)]
pub(crate) struct Answerer {
    /// What is sent.
    pub observed: Observed,
    /// What proxies reported.
    pub reports: Reports,
    /// What they send each second.
    pub early: EarlyCounts,
    /// Whose the pods were that it names.
    pub inventory: Arc<RwLock<Inventory>>,
    /// What may be queried from proxies.
    pub live_queries: LiveQueries,
    /// What they said of calls to Services with a breaker.
    pub fleet: Fleet,
    /// What pods are given of limits, and hold.
    pub share_registry: ShareRegistry,
    /// The identity that may call.
    pub identity: SpiffeId,
    /// Says true when the process ends.
    pub stop: watch::Receiver<bool>,
}

impl Answerer {
    /// Starts to tell everything, and then what changes.
    ///
    /// # Errors
    /// When the client is no controller.
    pub(crate) fn report(&self, peer: Option<&PeerIdentity>) -> Result<ObservedStream, Status> {
        self.admit(peer)?;
        let (observed, changes) = (self.observed.clone(), self.observed.own_changes());
        let (outbox, sent) = mpsc::channel(OUTBOX);
        let news = move |since| observed.own_since(since);
        self.answer("report", changes, news, outbox);
        Ok(ReceiverStream::new(sent))
    }

    /// Starts to tell what this replica's proxies reported, and then each report
    /// as it comes. Before each of both, which pods have ended since.
    ///
    /// # Errors
    /// When the client is no controller.
    pub(crate) fn reports(&self, peer: Option<&PeerIdentity>) -> Result<ReportStream, Status> {
        self.admit(peer)?;
        let (outbox, sent) = mpsc::channel(OUTBOX);
        let (reports, changes) = (self.reports.clone(), self.reports.own_changes());
        let (inventory, reported) = (Arc::clone(&self.inventory), AtomicU64::new(0));
        let news = move |since| {
            let last = reported.load(Ordering::Relaxed);
            let ended = ended_pods::ended_since(&inventory.read(), last, Instant::now());
            reported.store(ended.0, Ordering::Relaxed);
            match ended.1 {
                Some(ended) => (since, Some(ended)),
                None => reports.own_since(since, SystemTime::now()),
            }
        };
        self.answer("reports", changes, news, outbox.clone());
        let (early, changes) = (self.early.clone(), self.early.own_changes());
        let news = move |since| early.own_since(since, Instant::now());
        self.answer("early reports", changes, news, outbox.clone());
        let (share_registry, changes) = (
            self.share_registry.clone(),
            self.share_registry.own_changes(),
        );
        let news = move |since| share_registry.own_since(since);
        self.answer("shares", changes, news, outbox.clone());
        let (fleet, changes) = (self.fleet.clone(), self.fleet.own_changes());
        // Its last stream sent what was reported before, and that would count twice.
        let began = fleet.revision();
        let news = move |since| fleet.own_since(began.max(since));
        self.answer("pulses", changes, news, outbox);
        Ok(ReceiverStream::new(sent))
    }

    /// Queries this replica's proxies for the other one.
    ///
    /// # Errors
    /// When the client is no controller.
    pub(crate) fn live_queries(
        &self,
        peer: Option<&PeerIdentity>,
        messages: Streaming<v1::ReplicaAsk>,
    ) -> Result<Passed, Status> {
        self.admit(peer)?;
        Ok(replicas::pass(
            &self.live_queries,
            messages,
            self.stop.clone(),
        ))
    }

    fn admit(&self, peer: Option<&PeerIdentity>) -> Result<(), Status> {
        if peer.is_none_or(|peer| peer.spiffe != self.identity) {
            return Err(Status::permission_denied(
                "only a controller may ask what was observed",
            ));
        }
        Ok(())
    }

    /// Answers on a task of its own: what `news` gives for revision 0, and after each of `changes`
    /// what it gives for the revision that was sent last.
    fn answer<N: IntoIterator<Item: Send, IntoIter: Send> + Send + 'static>(
        &self,
        task: &'static str,
        changes: watch::Receiver<u64>,
        news: impl Fn(u64) -> (u64, N) + Send + Sync + 'static,
        outbox: mpsc::Sender<Result<N::Item, Status>>,
    ) {
        let stop = stop::requested(self.stop.clone());
        runtime::task::spawn(task, async move {
            tokio::select! {
                () = send_news(changes, news, outbox) => {}
                () = stop => {}
            }
        });
    }
}

async fn send_news<N: IntoIterator>(
    mut changes: watch::Receiver<u64>,
    news: impl Fn(u64) -> (u64, N),
    outbox: mpsc::Sender<Result<N::Item, Status>>,
) {
    let mut since = 0;
    loop {
        changes.mark_unchanged();
        // Some give a part at a time, so that what a slow peer has not taken yet is
        // not held twice.
        loop {
            let (revision, messages) = news(since);
            since = revision;
            let mut messages = messages.into_iter().peekable();
            if messages.peek().is_none() {
                break;
            }
            for message in messages {
                if outbox.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = outbox.closed() => return,
        }
        sleep(SETTLE).await;
    }
}

/// Listens to all other replicas.
#[derive(Clone)]
pub(crate) struct Listener {
    /// API server.
    pub client: Client,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Service whose endpoints the replicas are.
    pub service: String,
    /// This replica, which is skipped.
    pub own: IpAddr,
    /// Where it goes.
    pub observed: Observed,
    /// Where reports go.
    pub reports: Reports,
    /// Where early reports go.
    pub early: EarlyCounts,
    /// Where it goes whose the pods were that they name.
    pub inventory: Arc<RwLock<Inventory>>,
    /// The queries to them, and where answers go.
    pub live_queries: LiveQueries,
    /// Where breaker reports go.
    pub fleet: Fleet,
    /// Where shares go.
    pub share_registry: ShareRegistry,
    /// The roots to trust.
    pub roots: Roots,
    /// What to show.
    pub certificate: CertHandle,
    /// The identity to expect.
    pub identity: SpiffeId,
    /// Replicas that reports are received from.
    pub peers: Gauge,
}

opaque_debug!(Listener);

impl Listener {
    /// Follows the Service's endpoints until dropped.
    pub(crate) async fn run(self) {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let selector = format!("kubernetes.io/service-name={}", self.service);
        let config = watcher::Config::default().labels(&selector);
        let mut events = pin!(watcher::watcher(api, config).default_backoff());
        let mut slices: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut listed = BTreeMap::new();
        let mut is_listed = false;
        let mut tasks: BTreeMap<IpAddr, JoinHandle<()>> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(slice)) => {
                    listed.insert(name(&slice), self.addresses(&slice));
                }
                Ok(Event::InitDone) => {
                    slices = std::mem::take(&mut listed);
                    is_listed = true;
                }
                Ok(Event::Apply(slice)) => {
                    slices.insert(name(&slice), self.addresses(&slice));
                }
                Ok(Event::Delete(slice)) => {
                    slices.remove(&name(&slice));
                }
                Err(error) => {
                    warn!(%error, "watching the other replicas failed");
                    continue;
                }
            }
            // Before that it is not known which there are, and a rotation would wait for none.
            if !is_listed {
                continue;
            }
            let wanted: BTreeSet<IpAddr> =
                slices.values().flatten().copied().take(MAX_PEERS).collect();
            self.adjust(&wanted, &mut tasks);
        }
    }

    fn addresses(&self, slice: &EndpointSlice) -> BTreeSet<IpAddr> {
        let all = slice
            .endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.addresses);
        all.filter_map(|address| address.parse().ok())
            .filter(|ip| *ip != self.own)
            .collect()
    }

    fn adjust(&self, wanted: &BTreeSet<IpAddr>, tasks: &mut BTreeMap<IpAddr, JoinHandle<()>>) {
        self.observed.follow_replicas(wanted);
        tasks.retain(|peer, task| {
            let stays = wanted.contains(peer);
            if !stays {
                task.abort();
                self.observed.lost(*peer);
                self.share_registry.lost(*peer, Instant::now());
                info!(%peer, "replica is gone");
            }
            stays
        });
        for peer in wanted {
            tasks.entry(*peer).or_insert_with(|| {
                info!(%peer, "replica found");
                let (listener, addr) = (self.clone(), SocketAddr::new(*peer, SERVE_PORT));
                runtime::task::spawn("listen", async move { listener.listen(addr).await })
            });
        }
        self.peers
            .set(i64::try_from(tasks.len()).unwrap_or(i64::MAX));
    }

    /// Listens to one replica, and again after every end.
    pub(crate) async fn listen(&self, peer: SocketAddr) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        // Longer than a stream: what is sent again on the next one must lie where it lay.
        let mut clock = ClockOffset::of_stream(0, Instant::now());
        loop {
            match self.read(peer, &mut backoff, &mut clock).await {
                Ok(()) => debug!(%peer, "replica ended its report"),
                Err(error) => debug!(%peer, %error, "replica not reached"),
            }
            // What it said is kept for a while: it most likely still holds.
            backoff.wait().await;
            if backoff.failures() > 5 {
                self.observed.lost(peer.ip());
                self.share_registry.lost(peer.ip(), Instant::now());
            }
        }
    }

    async fn read(
        &self,
        peer: SocketAddr,
        backoff: &mut Backoff,
        clock: &mut ClockOffset,
    ) -> Result<(), tower::BoxError> {
        let tls = mesh_client_config(
            &self.roots,
            &self.certificate,
            self.identity.clone(),
            &[H2_ALPN],
        );
        let tls = TlsConnector::from(tls);
        let channel = Endpoint::try_from(format!("http://{peer}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector(tower::service_fn(move |_uri: Uri| {
                let tls = tls.clone();
                async move {
                    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(peer)).await??;
                    socket.set_nodelay(true)?;
                    let stream =
                        timeout(CONNECT_TIMEOUT, tls.connect(peer_name(), socket)).await??;
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            }))
            .await?;
        let mut client = ReplicaClient::new(channel).max_decoding_message_size(MAX_RECEIVED);
        let mut report = client.observe(v1::ObserveRequest {}).await?.into_inner();
        let reports = self.read_reports(client.clone(), peer.ip(), clock);
        let live_queries = replicas::pass_to(&self.live_queries, peer.ip(), client);
        tokio::pin!(reports, live_queries);
        loop {
            tokio::select! {
                news = report.message() => {
                    let Some(news) = news? else { return Ok(()) };
                    backoff.reset();
                    self.observed.receive(peer.ip(), news);
                }
                ended = &mut reports => return ended,
                ended = &mut live_queries => return ended,
            }
        }
    }

    async fn read_reports(
        &self,
        mut client: ReplicaClient<Channel>,
        peer: IpAddr,
        clock: &mut ClockOffset,
    ) -> Result<(), tower::BoxError> {
        clock.reopen(Instant::now());
        let reported = client.reports(v1::ReportsRequest {}).await;
        let mut reported = match reported {
            Ok(reported) => reported.into_inner(),
            // A replica of the version before says nothing of reports.
            Err(status) if status.code() == Code::Unimplemented => {
                return std::future::pending().await;
            }
            Err(status) => return Err(status.into()),
        };
        while let Some(mut news) = reported.message().await? {
            let ended = std::mem::take(&mut news.ended);
            ended_pods::receive(&self.inventory, ended, Instant::now());
            let breaker_reports = std::mem::take(&mut news.pulses);
            self.fleet.receive(breaker_reports, Instant::now());
            let early = std::mem::take(&mut news.early);
            self.early.receive(early, Instant::now());
            self.share_registry.receive(peer, &news, Instant::now());
            self.reports
                .receive(news, clock, SystemTime::now(), Instant::now());
        }
        Ok(())
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}
