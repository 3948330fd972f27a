//! Carries out the pod's original probes and lifecycle hooks on behalf of the
//! kubelet, which is not in the mesh.
//!
//! The kubelet calls the admin port; the proxy calls the application, at the pod's own address
//! and outside of redirection. Otherwise strict mode would refuse the kubelet, and a TCP probe
//! would find a proxy that always accepts instead of an application that may be dead.
//!
//! Every client in the cluster can reach the admin port. So targets are only those that the pod's
//! author wrote, hooks need the token that the injector made, and clients of one probe share one
//! run of it: frequent calls neither load the application nor keep the kubelet waiting.
//!
//! Imports a type of stream from `http`, and nothing else of this crate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use http::{HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use runtime::admin::{self, Response};

mod exchange;
mod grpc;
mod http_get;
pub(crate) mod target;

use crate::probe::exchange::ProbeResult;
pub(crate) use target::BadTargets;
use target::{Check, HttpGet, Probe};

/// All probes and hooks of this pod.
#[derive(Debug)]
pub(crate) struct Probes {
    pod_ip: IpAddr,
    /// By `<container>/<kind>`.
    probes: HashMap<String, Arc<SharedProbe>>,
    /// By `<token>/<container>/<kind>`.
    hooks: HashMap<String, HttpGet>,
}

/// A probe and the run of it that is under way.
#[derive(Debug)]
struct SharedProbe {
    probe: Probe,
    running: Mutex<Option<WeakShared<BoxFuture<'static, ProbeResult>>>>,
}

impl Probes {
    /// Reads `WEFT_PROBES` and `WEFT_HOOKS`; an empty text holds none.
    ///
    /// # Errors
    /// Names the variable, the key and what is wrong with it.
    pub(crate) fn parse(probes: &str, hooks: &str, pod_ip: IpAddr) -> Result<Self, BadTargets> {
        let entry = |probe| {
            Arc::new(SharedProbe {
                probe,
                running: Mutex::new(None),
            })
        };
        let probes = target::probes(probes)?.into_iter();
        Ok(Self {
            pod_ip,
            probes: probes.map(|(key, probe)| (key, entry(probe))).collect(),
            hooks: target::hooks(hooks)?,
        })
    }

    /// Answers `/probe/...` and `/hook/...`; `None` for every other path.
    pub(crate) async fn answer(&self, method: &Method, path: &str) -> Option<Response> {
        let probe = path.strip_prefix("/probe/");
        let hook = path.strip_prefix("/hook/");
        if probe.or(hook).is_some() && method != Method::GET {
            return Some(admin::text(StatusCode::METHOD_NOT_ALLOWED, "GET\n"));
        }
        if let Some(entry) = probe.and_then(|key| self.probes.get(key)) {
            return Some(probed(entry.verdict(self.pod_ip).await));
        }
        if let Some(hook) = hook.and_then(|key| self.hooks.get(key)) {
            // No time limit but the asker's patience: the kubelet gives hooks
            // the pod's grace period, and a hook ends with its connection.
            return Some(hooked(http_get::reach(hook, self.pod_ip).await));
        }
        probe
            .or(hook)
            .map(|_| admin::text(StatusCode::NOT_FOUND, "no such probe or hook\n"))
    }
}

impl SharedProbe {
    /// Joins the run under way, or starts one.
    fn verdict(self: &Arc<Self>, pod_ip: IpAddr) -> Shared<BoxFuture<'static, ProbeResult>> {
        let mut running = self.running.lock();
        let under_way = running.as_ref().and_then(WeakShared::upgrade);
        if let Some(run) = under_way.filter(|run| run.peek().is_none()) {
            return run;
        }
        let entry = Arc::clone(self);
        let run = async move { entry.probe.run(pod_ip).await }
            .boxed()
            .shared();
        *running = run.downgrade();
        run
    }
}

impl Probe {
    async fn run(&self, pod_ip: IpAddr) -> ProbeResult {
        let check = async {
            match &self.check {
                Check::Http(get) => http_get::probe(get, pod_ip).await,
                Check::Tcp(socket) => {
                    exchange::connect(socket.host.as_deref(), socket.port, pod_ip).await?;
                    Ok("connected".into())
                }
                Check::Grpc(health) => grpc::check(health, pod_ip).await,
            }
        };
        let late = |_| Err(format!("no answer within {} s", self.timeout.as_secs()));
        tokio::time::timeout(self.timeout, check)
            .await
            .unwrap_or_else(late)
    }
}

fn probed(verdict: ProbeResult) -> Response {
    match verdict {
        Ok(found) => admin::text(StatusCode::OK, found + "\n"),
        Err(reason) => admin::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

/// To the kubelet any answer to a hook is a success, whatever its status; only
/// the lack of one is a failure. A redirect to what is no URL is what its client
/// reports as such, and so a failed postStart still restarts the container.
fn hooked(verdict: ProbeResult) -> Response {
    match verdict {
        Ok(found) => admin::text(StatusCode::OK, found + "\n"),
        Err(reason) => {
            let mut answer = admin::text(StatusCode::FOUND, reason + "\n");
            answer
                .headers_mut()
                .insert(header::LOCATION, HeaderValue::from_static("%"));
            answer
        }
    }
}

#[cfg(test)]
mod tests;
