//! `weft-bench-control` measures the controller: the release program against a real
//! etcd and a real API server, with many pods that exist there only and proxies
//! that speak the real protocol. `bench/control/run` starts it.

mod api;
mod bench;
mod breaker_reports;
mod change_tracker;
mod cluster;
mod control;
#[path = "../../curves.rs"]
mod curves;
mod figures;
mod fleet;
mod graph;
mod messages;
mod moved;
mod page;
mod probe;
mod process;
#[path = "../../provenance.rs"]
mod provenance;
mod revocations;
mod routes;
mod scale;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::api::Api;
use crate::bench::Bench;
use crate::cluster::Size;
use crate::page::Must;
use crate::process::Program;

/// How long endpoints change at each size.
const CHANGING: Duration = Duration::from_secs(40);
/// Single changes of SMI objects at each size.
const CHANGES: usize = 240;

struct Arguments {
    kind: String,
    quick: bool,
    kubeconfig: PathBuf,
    controller: PathBuf,
    work: PathBuf,
    out: PathBuf,
    etcd: u32,
    api_server: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-bench-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<ExitCode> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    let api = Api::new(&arguments.kubeconfig).await?;
    let program = Program::new(
        &api,
        &arguments.controller,
        &arguments.kubeconfig,
        &arguments.work,
    )
    .await?;
    let bench = Bench {
        api,
        program,
        etcd: arguments.etcd,
        api_server: arguments.api_server,
        pki: arguments.work.join("pki"),
        started: Instant::now(),
    };
    let musts = match arguments.kind.as_str() {
        "scale" => bench.scale(arguments.quick, &arguments.out).await?,
        "control" => bench.control(arguments.quick, &arguments.out).await?,
        other => bail!("{other:?} is neither scale nor control"),
    };
    let mut missed = false;
    for must in musts {
        let verdict = if must.holds() { "met" } else { "MISSED" };
        println!(
            "{verdict}: {}: {:.1} {} (at most {})",
            must.what, must.found, must.unit, must.most
        );
        missed |= !must.holds();
    }
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Bench {
    async fn scale(&self, quick: bool, out: &Path) -> Result<Vec<Must>> {
        let (mut all, mut routed) = (Vec::new(), None);
        let mut from = Size::default();
        let changes = if quick { CHANGES / 8 } else { CHANGES };
        let sizes = scale::sizes(quick);
        let promised = sizes
            .iter()
            .rposition(|size| size.services <= scale::PROMISED);
        for (at, size) in sizes.into_iter().enumerate() {
            let turns = at * changes..(at + 1) * changes;
            let figures = scale::measure(self, &from, &size, turns).await?;
            self.log_progress(&format!("{figures:.1?}"));
            all.push(figures);
            if Some(at) == promised {
                let figures = routes::measure(self, &size, 0..changes).await?;
                self.log_progress(&format!("with routes: {figures:.1?}"));
                routed = Some(figures);
            }
            from = size;
            let took = self.started.elapsed().as_secs();
            page::scale::write(out, &all, routed.as_ref(), took)?;
        }
        Ok(page::scale::bounds(&all, routed.as_ref()))
    }

    async fn control(&self, quick: bool, out: &Path) -> Result<Vec<Must>> {
        probe::Probe::prepare(&self.api).await?;
        let mut all = Vec::new();
        let mut from = Size::default();
        for size in control::sizes(quick) {
            let changing = if quick { CHANGING / 4 } else { CHANGING };
            let figures = control::measure(self, &from, &size, changing).await?;
            self.log_progress(&format!("{figures:.1?}"));
            all.push(figures);
            from = size;
            page::control::write(out, &all, self.started.elapsed().as_secs())?;
        }
        Ok(page::control::bounds(&all))
    }
}

impl Arguments {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let all: Vec<String> = arguments.collect();
        let named = |name: &str| -> Result<&str> {
            let prefix = format!("--{name}=");
            all.iter()
                .find_map(|argument| argument.strip_prefix(&prefix))
                .with_context(|| format!("--{name}= is missing"))
        };
        Ok(Self {
            kind: all.first().context("scale or control")?.clone(),
            quick: all.iter().any(|argument| argument == "--quick"),
            kubeconfig: named("kubeconfig")?.into(),
            controller: named("controller")?.into(),
            work: named("work")?.into(),
            out: named("out")?.into(),
            etcd: named("etcd")?.parse()?,
            api_server: named("api-server")?.parse()?,
        })
    }
}
