//! Starts a Gateway's pod and ends it: when it is ready, and how its connections drain.
//!
//! Load balancers learn of its end later than it does. So it goes on accepting for a while, and
//! announces to each client that its connection ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use runtime::ready::{Hold, Ready};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weft_proxy::{
    Metrics, Permits, Proxy, Running, StartupStep, follow_revocations, of_listener, relieve,
    run_with, sweep, warn_of_few_files,
};

use crate::connection::Shared;
use crate::handing_over;
use crate::ports::{Door, everywhere, follow};
use crate::serving::Serving;
use crate::settings::GatewaySettings;

/// No load balancer sends anything new after so long without a new connection.
const QUIET_FOR: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is open ends within this time.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
/// And what is open then gets a last moment.
const STOPS_WITHIN: Duration = Duration::from_millis(1500);

/// Serves the listeners of a Gateway on the current runtime.
#[derive(Debug)]
pub struct Gateway {
    door: Door,
    /// Of what proxies hand over.
    handing: Permits,
    opened: watch::Receiver<bool>,
    accepting: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Begins to serve on these addresses what the proxy's configuration says. So many proxies
    /// before it are believed about clients.
    #[must_use]
    pub fn start(proxy: Arc<Proxy>, addresses: Vec<IpAddr>, trusted_hops: u8) -> Self {
        let metrics = &proxy.telemetry.metrics;
        let full = |metrics: &Metrics| metrics.limit("inbound-connections");
        let permits = of_listener(metrics, full, true, 1);
        let full = |metrics: &Metrics| metrics.limit("mesh-connections");
        let handing = of_listener(metrics, full, true, 1);
        let both = vec![permits.clone(), handing.clone()];
        for permits in &both {
            let occupancy = Arc::clone(&permits.occupancy);
            runtime::task::spawn("slow heads", occupancy.watch());
        }
        let relieving = relieve(Arc::clone(proxy.budget()), both);
        runtime::task::spawn("memory", relieving);
        runtime::task::spawn("sweep", sweep(vec![Arc::clone(&proxy)]));
        let revocations = follow_revocations(Arc::clone(&proxy));
        runtime::task::spawn("revocations", revocations);
        let mut accepting = handing_over::accept(&proxy, &handing, &addresses);
        let shared = Shared {
            proxy,
            trusted_hops,
            serving: watch::Sender::new(Arc::new(Serving::default())),
        };
        let door = Door {
            shared: Arc::new(shared),
            permits,
            came: Arc::new(AtomicU64::new(0)),
        };
        let (opens, opened) = watch::channel(false);
        let following = follow(door.clone(), addresses, opens);
        accepting.push(runtime::task::spawn("ports", following));
        Self {
            door,
            handing,
            opened,
            accepting,
        }
    }

    /// Returns once it serves what it was configured to serve.
    pub fn opened(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut opened = self.opened.clone();
        async move {
            let _ = opened.wait_for(|opened| *opened).await;
        }
    }

    /// Ends connections behind what is in flight on them, and returns when nothing comes any more
    /// and all has ended, or when that takes too long.
    pub async fn leave(&self) {
        self.door.shared.proxy.leave();
        let ended = async {
            let mut quiet_since = (self.door.came.load(Relaxed), Instant::now());
            loop {
                sleep(LOOK_EVERY).await;
                let came = self.door.came.load(Relaxed);
                if came != quiet_since.0 {
                    quiet_since = (came, Instant::now());
                }
                let open = self.door.permits.occupancy.taken() + self.handing.occupancy.taken();
                if open == 0 && quiet_since.1.elapsed() >= QUIET_FOR {
                    return;
                }
            }
        };
        let _ = timeout(LEAVES_WITHIN, ended).await;
    }

    /// Closes its ports, and ends what is open within a moment.
    pub async fn stop(self) {
        for accepting in self.accepting {
            accepting.abort();
            let _ = accepting.await;
        }
        self.door.shared.proxy.drain.stop();
        let ended = async {
            self.door.permits.occupancy.emptied().await;
            self.handing.occupancy.emptied().await;
        };
        let _ = timeout(STOPS_WITHIN, ended).await;
    }
}

/// Runs the pod of a Gateway until SIGTERM. `began`: when the program did.
///
/// # Errors
/// When the admin port is taken, or the trust bundle cannot be read.
pub fn run(settings: GatewaySettings, began: Instant) -> anyhow::Result<()> {
    let GatewaySettings {
        proxy,
        trusted_hops,
    } = settings;
    let ready = Ready::new();
    let opening = ready.hold("listeners of the Gateway");
    run_with(proxy.workload, began, ready, move |running| {
        serve(running, trusted_hops, opening)
    })
}

async fn serve(running: Running, trusted_hops: u8, opening: Hold) -> anyhow::Result<()> {
    let stopped = runtime::stop::signal()?;
    let Running { proxy, ready, .. } = running;
    let startup = proxy.telemetry.metrics.startup.clone();
    warn_of_few_files(1);
    let gateway = Gateway::start(proxy, everywhere(), trusted_hops);
    let opened = gateway.opened();
    runtime::task::spawn("opening", async move {
        opened.await;
        startup.reached(StartupStep::Listeners);
        opening.release();
    });
    let signal = stopped.await;
    tracing::info!(signal, "stopping");
    let _stopping = ready.hold("stopping");
    gateway.leave().await;
    gateway.stop().await;
    Ok(())
}
