//! Writes docs/scale.md and bench/CONTROL.md.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::crowded;
use crate::made;
use crate::picture::{Panel, short, svg};
use crate::scale;

/// What the figures depend on.
const SOURCES: &[&str] = &[
    "controller",
    "wire",
    "policy",
    "identity",
    "runtime",
    "crds",
    "bench/src",
    "Cargo.toml",
];

/// A bound, and what was found.
#[derive(Clone, Debug)]
pub(crate) struct Must {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) most: f64,
    pub(crate) found: f64,
}

impl Must {
    pub(crate) fn holds(&self) -> bool {
        self.found <= self.most
    }
}

/// The bounds of `make scale`, at the size for which they hold.
pub(crate) fn scale_musts(all: &[scale::Figures]) -> Vec<Must> {
    let promised = all.iter().rfind(|figures| figures.size.services <= 1000);
    let Some(figures) = promised else {
        return Vec::new();
    };
    vec![
        Must {
            what: "controller memory, at its peak",
            unit: "MiB",
            most: 300.0,
            found: figures.memory.peak,
        },
        Must {
            what: "one change, write to acknowledgement, p99",
            unit: "ms",
            most: 200.0,
            found: figures.delays.p99(),
        },
        Must {
            what: "changes that did not arrive",
            unit: "",
            most: 0.0,
            found: figures.lost as f64,
        },
    ]
}

/// The bounds of `make bench-control`, at the last size.
pub(crate) fn crowded_musts(all: &[crowded::Figures]) -> Vec<Must> {
    let Some(figures) = all.last() else {
        return Vec::new();
    };
    let peak = figures.after_changes.peak.max(figures.after_restart.peak);
    vec![
        Must {
            what: "controller memory, at its peak",
            unit: "MiB",
            most: 400.0,
            found: peak,
        },
        Must {
            what: "change to acknowledgement, p99",
            unit: "ms",
            most: 500.0,
            found: figures.each.p99(),
        },
        Must {
            what: "changes that a proxy missed",
            unit: "",
            most: 0.0,
            found: figures.lost as f64,
        },
        Must {
            what: "a pod that comes or goes, slice to acknowledgement, p99",
            unit: "ms",
            most: 500.0,
            found: figures.pods_each.p99(),
        },
        Must {
            what: "pods' coming or going that a proxy missed",
            unit: "",
            most: 0.0,
            found: figures.pods_lost as f64,
        },
        Must {
            what: "reconnect of all proxies after a crash",
            unit: "s",
            most: 15.0,
            found: figures.reconnect,
        },
        Must {
            what: "requests that the API server turned away meanwhile",
            unit: "",
            most: 0.0,
            found: figures.rejected as f64,
        },
    ]
}

pub(crate) fn write_scale(root: &Path, all: &[scale::Figures], took: u64) -> Result<()> {
    let mut text = head("Scale", "make scale", took);
    text.push_str(
        "A real etcd and a real API server hold Services, EndpointSlices, Nodes and Pods that no kubelet runs, and \
         the SMI objects. The controller is the release program with the roles and defaults of the chart, the \
         metrics API included. 20 proxies hold a stream over mutual TLS, each certified with its pod's own token. \
         One object is changed at a time, in turns an HTTPRouteGroup, a TrafficTarget and a TrafficSplit; the time \
         runs from the API server's answer to the write until the proxy that needs it has the change and \
         acknowledges it, so watch, compile, publish and transport are in it.\n\n",
    );
    musts(&mut text, &scale_musts(all));
    text.push_str("## How it grows\n\n![growth](scale.svg)\n\n");
    text.push_str("| | ");
    row(&mut text, all, |f| format!("{} Services", f.size.services));
    text.push_str(&format!("|---|{}\n", "---|".repeat(all.len())));
    let line = |text: &mut String, name: &str, of: &dyn Fn(&scale::Figures) -> String| {
        let _ = write!(text, "| {name} | ");
        row(text, all, of);
    };
    line(&mut text, "Pods", &|f| f.size.pods().to_string());
    line(&mut text, "TrafficTargets, HTTPRouteGroups each", &|f| {
        f.size.targets.to_string()
    });
    line(&mut text, "TrafficSplits", &|f| f.size.splits.to_string());
    line(&mut text, "memory, MiB", &|f| short(f.memory.now));
    line(&mut text, "memory at its peak, MiB", &|f| {
        short(f.memory.peak)
    });
    line(&mut text, "start to ready, s", &|f| short(f.ready));
    line(&mut text, "changes", &|f| f.changes.to_string());
    line(
        &mut text,
        "write's answer to acknowledgement p50, ms",
        &|f| short(f.delays.p50()),
    );
    line(&mut text, "p99, ms", &|f| short(f.delays.p99()));
    line(&mut text, "longest, ms", &|f| short(f.delays.most()));
    line(
        &mut text,
        "begin of the write to acknowledgement p99, ms",
        &|f| short(f.whole.p99()),
    );
    line(&mut text, "compiling alone p50, p99, ms", &|f| {
        format!("{}, {}", short(f.compiling.p50()), short(f.compiling.p99()))
    });
    line(&mut text, "controller CPU per change, ms", &|f| {
        short(f.cpu_per_change)
    });
    line(&mut text, "load average before", &|f| short(f.load));
    text.push_str(
        "\nThe peak of memory belongs to the start: every object is listed and read once, and every status written. \
         CPU per change includes writing the changed object's status.\n",
    );
    let sizes: Vec<f64> = all.iter().map(|f| f.size.services as f64).collect();
    let panels = [
        Panel {
            title: "memory, MiB".to_owned(),
            curves: vec![
                curve("peak", all, |f| f.memory.peak),
                curve("settled", all, |f| f.memory.now),
            ],
            bound: Some(300.0),
        },
        Panel {
            title: "write to acknowledgement, ms".to_owned(),
            curves: vec![
                curve("p99", all, |f| f.delays.p99()),
                curve("p50", all, |f| f.delays.p50()),
            ],
            bound: Some(200.0),
        },
        Panel {
            title: "controller CPU per change, ms".to_owned(),
            curves: vec![curve("CPU", all, |f| f.cpu_per_change)],
            bound: None,
        },
    ];
    let picture = svg(
        "Cost of SMI objects (2 targets, 2 groups, half a split per Service)",
        "Services",
        &sizes,
        &panels,
    );
    fs::write(root.join("docs/scale.md"), text)?;
    fs::write(root.join("docs/scale.svg"), picture)?;
    Ok(())
}

pub(crate) fn write_crowded(root: &Path, all: &[crowded::Figures], took: u64) -> Result<()> {
    let mut text = head("What the controller costs", "make bench-control", took);
    text.push_str(
        "A real etcd and a real API server hold Nodes, Pods, Services and EndpointSlices that no kubelet runs; the \
         bench writes them itself, Pods with the status that a kubelet reports. kwok would give the controller the \
         same objects, with two more programs, twice the writes and heartbeats beside them that compete for the same \
         cores; nothing that the controller sees would differ. The controller is the release program with the roles \
         and defaults of the chart, the metrics API included. Every fifth Pod has a proxy that speaks the real \
         protocol: a token of its service account bound to the Pod, a certificate for it after a TokenReview, one \
         stream over mutual TLS, every batch acknowledged. It calls nine Services of its own and one of ten that \
         everybody shares. There is one TrafficTarget and one HTTPRouteGroup for every fifth Service and a split for \
         every twentieth.\n\n\
         50 times a second one endpoint becomes ready or stops being it. The time runs from the API server's answer \
         until a proxy that calls the Service has the change and acknowledges it. After that pods come, go and change \
         labels, 10 a second in turns: one of no Service comes, a meshed one goes with its endpoint, another changes a \
         label, the meshed one comes back, the first one goes; the time runs from the write of the slice, which may come \
         before the proxies have heard of the pod itself. Then the controller is killed and \
         started anew at once, as a container that crashed; the time runs from the kill until every proxy has the \
         first batch of a new stream. Proxies wait between tries as real ones do. Everything shares the machine's \
         cores: bench, proxies, etcd, API server, controller.\n\n",
    );
    musts(&mut text, &crowded_musts(all));
    text.push_str("## How it grows\n\n![growth](control-cost.svg)\n\n| | ");
    row(&mut text, all, |f| format!("{} Pods", f.size.pods()));
    text.push_str(&format!("|---|{}\n", "---|".repeat(all.len())));
    let line = |text: &mut String, name: &str, of: &dyn Fn(&crowded::Figures) -> String| {
        let _ = write!(text, "| {name} | ");
        row(text, all, of);
    };
    line(&mut text, "Services", &|f| f.size.services.to_string());
    line(&mut text, "streaming proxies", &|f| f.proxies.to_string());
    line(&mut text, "start to ready, s", &|f| short(f.ready));
    line(&mut text, "memory without proxies, MiB", &|f| {
        short(f.alone.now)
    });
    line(&mut text, "with all proxies", &|f| short(f.connected.now));
    line(&mut text, "after the changes (peak)", &|f| {
        format!(
            "{} ({})",
            short(f.after_changes.now),
            short(f.after_changes.peak)
        )
    });
    line(&mut text, "after the restart (peak)", &|f| {
        format!(
            "{} ({})",
            short(f.after_restart.now),
            short(f.after_restart.peak)
        )
    });
    line(
        &mut text,
        "all proxies new: certified and connected, s",
        &|f| short(f.first_connect),
    );
    line(&mut text, "endpoint changes", &|f| f.changes.to_string());
    line(&mut text, "change to acknowledgement p50, ms", &|f| {
        short(f.each.p50())
    });
    line(&mut text, "p99, ms", &|f| short(f.each.p99()));
    line(&mut text, "longest, ms", &|f| short(f.each.most()));
    line(
        &mut text,
        "begin of the write to the last proxy's p99, ms",
        &|f| short(f.last.p99()),
    );
    line(&mut text, "acknowledgements measured", &|f| {
        f.each.len().to_string()
    });
    line(&mut text, "compiling alone p50, p99, ms", &|f| {
        format!("{}, {}", short(f.compiling.p50()), short(f.compiling.p99()))
    });
    line(&mut text, "controller CPU per change, ms", &|f| {
        short(f.cpu_per_change)
    });
    line(&mut text, "batches per change", &|f| {
        short(f.batches_per_change)
    });
    line(&mut text, "pods that came, went or changed a label", &|f| {
        f.pods_moved.to_string()
    });
    line(
        &mut text,
        "their endpoint's change to acknowledgement p50, p99, ms",
        &|f| format!("{}, {}", short(f.pods_each.p50()), short(f.pods_each.p99())),
    );
    line(&mut text, "compiling alone meanwhile p50, p99, ms", &|f| {
        let all = &f.pods_compiling;
        format!("{}, {}", short(all.p50()), short(all.p99()))
    });
    line(&mut text, "controller CPU per pod, ms", &|f| {
        short(f.cpu_per_pod)
    });
    line(&mut text, "etcd and API server CPU per change, ms", &|f| {
        short(f.api_cpu_per_change)
    });
    line(&mut text, "reconnect of all, s", &|f| short(f.reconnect));
    line(&mut text, "controller CPU for it, s", &|f| {
        short(f.reconnect_cpu)
    });
    line(&mut text, "etcd and API server CPU for it, s", &|f| {
        short(f.reconnect_api_cpu)
    });
    line(
        &mut text,
        "another client's calls before: p50, p99, ms",
        &|f| {
            format!(
                "{}, {}",
                short(f.probe_before.p50()),
                short(f.probe_before.p99())
            )
        },
    );
    line(&mut text, "meanwhile: p50, p99, ms", &|f| {
        format!(
            "{}, {}",
            short(f.probe_meanwhile.p50()),
            short(f.probe_meanwhile.p99())
        )
    });
    line(&mut text, "requests turned away by the API server", &|f| {
        f.rejected.to_string()
    });
    line(&mut text, "load average before the changes", &|f| {
        short(f.load)
    });
    if let Some(last) = all.last() {
        let requests: Vec<String> = last
            .requests
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let _ = writeln!(
            text,
            "\nWhat the API server answered during the last restart and until the controller was quiet again, the \
             probe's own GET and PATCH of a ConfigMap included: {}. A restart needs no TokenReview: certificates \
             outlive the controller.\n",
            requests.join(", ")
        );
    }
    text.push_str(&outlook(all));
    let sizes: Vec<f64> = all.iter().map(|f| f.size.pods() as f64).collect();
    let panels = [
        Panel {
            title: "memory, MiB".to_owned(),
            curves: vec![
                curve("peak", all, |f| {
                    f.after_changes.peak.max(f.after_restart.peak)
                }),
                curve("with proxies", all, |f| f.connected.now),
                curve("without", all, |f| f.alone.now),
            ],
            bound: Some(400.0),
        },
        Panel {
            title: "change to acknowledgement, ms".to_owned(),
            curves: vec![
                curve("p99", all, |f| f.each.p99()),
                curve("p50", all, |f| f.each.p50()),
            ],
            bound: Some(500.0),
        },
        Panel {
            title: "controller CPU per change, ms".to_owned(),
            curves: vec![curve("CPU", all, |f| f.cpu_per_change)],
            bound: None,
        },
        Panel {
            title: "reconnect after a crash, s".to_owned(),
            curves: vec![
                curve("all proxies", all, |f| f.reconnect),
                curve("controller CPU", all, |f| f.reconnect_cpu),
            ],
            bound: Some(15.0),
        },
    ];
    let picture = svg(
        "Cost of the controller (a Service per 10 Pods, a proxy per 5)",
        "Pods",
        &sizes,
        &panels,
    );
    fs::write(root.join("bench/CONTROL.md"), text)?;
    fs::write(root.join("bench/control-cost.svg"), picture)?;
    Ok(())
}

/// Lines through the two largest sizes, drawn out to 100 000 Pods: what is linear
/// stays so, and what is not shows in the table above.
fn outlook(all: &[crowded::Figures]) -> String {
    let [.., before, last] = all else {
        return String::new();
    };
    let far = |of: &dyn Fn(&crowded::Figures) -> f64| {
        let (x0, x1) = (before.size.pods() as f64, last.size.pods() as f64);
        let slope = (of(last) - of(before)) / (x1 - x0);
        (of(last) + slope * (100_000.0 - x1)).max(of(last))
    };
    let memory = far(&|f| f.after_changes.peak.max(f.after_restart.peak));
    let cpu = far(&|f| f.cpu_per_change);
    let reconnect = far(&|f| f.reconnect_cpu);
    let core = cpu * 50.0 / 1000.0;
    format!(
        "## At 100 000 Pods\n\nA line through the two largest sizes, with 10 000 Services and 20 000 proxies on one replica: \
         {:.1} GiB of memory, {} ms of CPU per change and {} s of CPU for a reconnect. At 50 changes/s that is {} of \
         one core, and the controller uses one: {}. A replica also takes at most 8 192 connections, so 20 000 \
         proxies need four replicas, three that share them and one that may be missing; each holds the whole World.\n",
        memory / 1024.0,
        short(cpu),
        short(reconnect),
        short(core),
        if core > 1.0 {
            "this is the next limit"
        } else {
            "memory and the time of a reconnect are the next limits"
        }
    )
}

fn musts(text: &mut String, musts: &[Must]) {
    text.push_str("| must | bound | found | |\n|---|---|---|---|\n");
    for must in musts {
        let _ = writeln!(
            text,
            "| {} | {} {} | {} {} | {} |",
            must.what,
            must.most,
            must.unit,
            short(must.found),
            must.unit,
            if must.holds() { "met" } else { "**missed**" }
        );
    }
    text.push('\n');
}

fn row<T>(text: &mut String, all: &[T], of: impl Fn(&T) -> String) {
    let cells: Vec<String> = all.iter().map(of).collect();
    let _ = writeln!(text, "{} |", cells.join(" | "));
}

fn curve<T>(name: &str, all: &[T], of: impl Fn(&T) -> f64) -> (String, Vec<f64>) {
    (name.to_owned(), all.iter().map(of).collect())
}

fn head(title: &str, command: &str, took: u64) -> String {
    format!(
        "# {title}\n\nWritten by `{command}`, {}, in {} min. Commit {}. Machine: {}.\n\n",
        time::OffsetDateTime::now_utc().date(),
        took.div_ceil(60),
        made::commit(SOURCES),
        made::machine()
    )
}
