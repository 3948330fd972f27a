//! The agent of a node, which captures the traffic of its pods for them: `weft-proxy
//! capture-agent`, the DaemonSet `weft-node`.
//!
//! The agent comes to the pod. It lists the folder in which the container runtime keeps the network
//! namespaces of its pods, enters each by a thread of its own and connects to the socket of the
//! pod's init container, if that is there. So nothing listens on the node, pods need neither a
//! privilege nor a way to the node, and no plugin has a race with a node that boots: a pod waits
//! until an agent has been there.
//!
//! The rules are the kernel's. An agent may end, or run beside its successor, at any time.

mod rounds;
mod visit;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Context;
use parking_lot::Mutex;
use policy::terminal::acts_upon;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use runtime::admin::{self, Admin};
use runtime::env::{BadEnv, EnvReader};
use runtime::log::Format;
use runtime::ready::{Hold, Ready};
use runtime::{listen, log, metrics, stop, task};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use self::rounds::{AT_ONCE, LOOK_EVERY, Rounds};
use self::visit::{Failed, Refused, Visit, visit};

/// Probes and metrics, in the agent's own network namespace.
const ADMIN_PORT: u16 = 8080;
/// Where the chart mounts the folder of network namespaces.
const NETNS_DIR: &str = "/var/run/weft/netns";

/// The agent's settings, read from its environment.
#[derive(Clone, Debug)]
struct AgentSettings {
    /// The node, for logs.
    node: String,
    /// All addresses of the node.
    hosts: Vec<IpAddr>,
    folder: PathBuf,
    log: String,
    admin_port: u16,
}

impl AgentSettings {
    fn read(mut env: EnvReader) -> Result<Self, BadEnv> {
        let node = env.required("WEFT_NODE_NAME");
        let hosts: Vec<IpAddr> = env.list("WEFT_HOST_IPS");
        if hosts.is_empty() {
            // Without them the node itself could be captured.
            env.mistake("WEFT_HOST_IPS", "must name the node's addresses");
        }
        let folder = env.or("WEFT_NETNS_DIR", NETNS_DIR.to_owned());
        let log = env.or("WEFT_LOG", "info".to_owned());
        let admin_port = env.or("WEFT_ADMIN_PORT", ADMIN_PORT);
        env.finish_with(|| {
            Some(Self {
                node: node?,
                hosts,
                folder: folder.into(),
                log,
                admin_port,
            })
        })
    }
}

/// The subcommand `capture-agent`: runs until SIGTERM. Exit code 78 means that the environment is
/// wrong, 1 that something failed.
pub fn command() -> ExitCode {
    let settings = match AgentSettings::read(EnvReader::from_env()) {
        Ok(settings) => settings,
        Err(error) => {
            report(&error.to_string());
            return ExitCode::from(78);
        }
    };
    let ended = run(settings);
    log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn report(line: &str) {
    // No output is left when stderr is closed; the exit code remains.
    let _ = writeln!(io::stderr(), "capture-agent: {line}");
}

fn run(settings: AgentSettings) -> anyhow::Result<()> {
    log::init(&settings.log, Format::Json, acts_upon)?;
    // One thread for what waits; each namespace that is entered has a thread of its own.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(serve(settings))
}

async fn serve(settings: AgentSettings) -> anyhow::Result<()> {
    // First of all, so that no SIGTERM is lost.
    let mut ended = Box::pin(stop::signal().context("no signal handler")?);
    let mut registry = Registry::default();
    metrics::register(&mut registry);
    let captures = Captures::register(&mut registry);
    let ready = Ready::new();
    let hold = ready.hold("the folder of network namespaces");
    let admin = Admin::bind(listen::everywhere(settings.admin_port)).await;
    let admin = admin.context("admin port")?;
    let registry = Arc::new(Mutex::new(registry));
    task::spawn("admin", admin.run(ready, registry, admin::nothing_more));
    let node = settings.node.clone();
    info!(node, folder = ?settings.folder, "node agent started");
    let agent = Agent::new(settings, captures).context("own network namespace")?;
    tokio::select! {
        never = agent.run(hold) => match never {},
        signal = &mut ended => {
            info!(signal, "node agent ends");
            Ok(())
        }
    }
}

/// Attempts by their results. One without a listener is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CaptureLabels {
    /// `captured`, `present`, `refused` or `failed`.
    outcome: &'static str,
    /// More about it, or empty.
    reason: &'static str,
}

impl EncodeLabelSet for CaptureLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("outcome", self.outcome), ("reason", self.reason)].encode(encoder)
    }
}

impl CaptureLabels {
    fn of(visit: &Visit) -> Option<Self> {
        let (outcome, reason) = match visit {
            Visit::NoListener => return None,
            Visit::Captured(_) => ("captured", ""),
            Visit::Present(_) => ("present", ""),
            Visit::Refused { why, .. } => {
                let reason = match why {
                    Refused::HostNetwork => "host-network",
                    Refused::OtherRules => "other-rules",
                    Refused::BadRequest => "bad-request",
                };
                ("refused", reason)
            }
            Visit::Failed { why, .. } => {
                let reason = match why {
                    Failed::Enter => "enter",
                    Failed::Slow => "slow",
                    Failed::Kernel => "kernel",
                };
                ("failed", reason)
            }
        };
        Some(Self { outcome, reason })
    }
}

#[derive(Clone, Debug, Default)]
struct Captures(Family<CaptureLabels, Counter>);

impl Captures {
    fn register(registry: &mut Registry) -> Self {
        let captures = Self::default();
        registry.register(
            "weft_node_captures",
            "Requests of pods to capture their traffic, by outcome",
            captures.0.clone(),
        );
        captures
    }
}

/// What one thread reports as it ends.
struct Visited {
    name: OsString,
    inode: u64,
    visit: Visit,
}

struct Agent {
    settings: AgentSettings,
    hosts: Arc<[IpAddr]>,
    captures: Captures,
    rounds: Rounds,
    /// Those that have not been seen to end, by the names of their namespaces.
    threads: HashMap<OsString, JoinHandle<()>>,
    /// The file system of all namespaces, and the number of the agent's own.
    own: (u64, u64),
    /// Namespaces wait for those that are tried.
    is_crowded: Arc<AtomicBool>,
    /// The folder could be read the last time.
    is_readable: bool,
}

impl Agent {
    fn new(settings: AgentSettings, captures: Captures) -> io::Result<Self> {
        // That of the process: no thread that runs has entered another one yet.
        let own = fs::metadata("/proc/self/ns/net")?;
        Ok(Self {
            hosts: settings.hosts.as_slice().into(),
            settings,
            captures,
            rounds: Rounds::default(),
            threads: HashMap::new(),
            own: (own.dev(), own.ino()),
            is_crowded: Arc::default(),
            is_readable: true,
        })
    }

    async fn run(mut self, hold: Hold) -> Infallible {
        let mut hold = Some(hold);
        let (done, mut visited) = mpsc::channel(AT_ONCE);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    if self.look() {
                        drop(hold.take());
                    }
                }
                Some(one) = visited.recv() => self.visited(&one),
            }
            let now = Instant::now();
            while let Some(name) = self.rounds.next(now) {
                self.begin(&name, now, &done);
            }
            let is_crowded = self.rounds.is_crowded(now);
            self.is_crowded.store(is_crowded, Ordering::Relaxed);
        }
    }

    /// Takes note of the names in the folder; whether it can be read.
    fn look(&mut self) -> bool {
        match names(&self.settings.folder) {
            Ok(names) => {
                self.rounds.listed(&names, Instant::now());
                self.is_readable = true;
            }
            Err(error) => {
                if self.is_readable {
                    let folder = &self.settings.folder;
                    warn!(?folder, %error, "folder of network namespaces cannot be read");
                }
                self.is_readable = false;
            }
        }
        self.is_readable
    }

    /// Opens a namespace and makes the thread that enters it.
    fn begin(&mut self, name: &OsStr, now: Instant, done: &mpsc::Sender<Visited>) {
        let opened = match open(&self.settings.folder.join(name), self.own) {
            Ok(opened) => opened,
            Err(error) => {
                if self.rounds.may_report(name, now) {
                    warn!(?name, %error, "network namespace cannot be opened");
                }
                None
            }
        };
        let Some((namespace, inode)) = opened else {
            self.rounds.ended(name, None, false, now);
            return;
        };
        let (hosts, is_crowded) = (Arc::clone(&self.hosts), Arc::clone(&self.is_crowded));
        let (done, entered) = (done.clone(), name.to_owned());
        // A new one each time, since it never leaves the namespace again.
        let thread = thread::Builder::new().name("visit".to_owned());
        let started = thread.spawn(move || {
            let visit = visit(&namespace, &hosts, &is_crowded);
            let visited = Visited {
                name: entered,
                inode,
                visit,
            };
            // Fails when the agent ends.
            let _ = done.blocking_send(visited);
        });
        match started {
            Ok(thread) => {
                self.threads.insert(name.to_owned(), thread);
            }
            Err(error) => {
                if self.rounds.may_report(name, now) {
                    warn!(?name, %error, "no thread for a network namespace");
                }
                self.rounds.ended(name, Some(inode), false, now);
            }
        }
    }

    fn visited(&mut self, visited: &Visited) {
        let Visited { name, inode, visit } = visited;
        // Its place is free when it has ended, which is all that it has left to do.
        if let Some(thread) = self.threads.remove(name) {
            let _ = thread.join();
        }
        let now = Instant::now();
        let listened = *visit != Visit::NoListener;
        self.rounds.ended(name, Some(*inode), listened, now);
        let Some(labels) = CaptureLabels::of(visit) else {
            return;
        };
        self.captures.0.get_or_create(&labels).inc();
        if !self.rounds.may_report(name, now) {
            return;
        }
        let CaptureLabels { outcome, reason } = labels;
        match visit {
            Visit::Refused { reason: why, .. } | Visit::Failed { reason: why, .. } => {
                warn!(?name, outcome, reason, why, "pod was not captured");
            }
            _ => info!(?name, outcome, "pod was captured"),
        }
    }
}

fn names(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// Opens the file of a network namespace, and returns its number; `None` for another file, and for
/// the agent's own. What was opened is what is looked at and entered, whatever takes its name
/// meanwhile.
fn open(path: &Path, (file_system, own): (u64, u64)) -> io::Result<Option<(File, u64)>> {
    // Neither by a link, nor waiting for a writer of a pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        // A link; gone since it was listed; a socket.
        Err(error) => match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOENT | libc::ENXIO) => return Ok(None),
            _ => return Err(error),
        },
    };
    let metadata = file.metadata()?;
    let is_foreign = metadata.dev() == file_system && metadata.ino() != own;
    Ok(is_foreign.then(|| (file, metadata.ino())))
}

#[cfg(test)]
mod tests;
