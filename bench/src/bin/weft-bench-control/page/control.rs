//! bench/CONTROL.md: what a large cluster costs the controller.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Must, curve, head, line, musts, row};
use crate::control;
use crate::curves::{Panel, short, svg};

/// How the figures of `make bench-control` come about.
const METHOD: &str = "A real etcd and a real API server hold Nodes, Pods, Services and EndpointSlices that no kubelet runs; the \
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
    before the proxies have heard of the pod itself. Twenty Revocations of one pod each follow, one at a time: every proxy of the \
    mesh has to have each, and the time runs from the API server's answer. Then the controller is killed and \
    started anew at once, as a container that crashed; the time runs from the kill until every proxy has the \
    first batch of a new stream. Proxies wait between tries as real ones do. Everything shares the machine's \
    cores: bench, proxies, etcd, API server, controller.\n\n\
    Before the changes every proxy reports each 5 s calls to four pods of each of five Services, and then the graph of \
    the whole cluster is read nine times, over TLS as the API server reads it, each time with another window so that \
    no answer is shared. Then every proxy reports each second how its calls to each of its ten Services went, all of which \
    have a breaker, and after that all calls to one of the shared ones fail.\n\n";

/// The bounds of `make bench-control`, at the last size.
pub(crate) fn bounds(all: &[control::Figures]) -> Vec<Must> {
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
            what: "a Revocation, write to acknowledgement by every proxy, p99",
            unit: "ms",
            most: 1000.0,
            found: figures.revocations.each.p99(),
        },
        Must {
            what: "Revocations that a proxy missed",
            unit: "",
            most: 0.0,
            found: figures.revocations.lost as f64,
        },
        Must {
            what: "reconnect of all proxies after a crash",
            unit: "s",
            most: 15.0,
            found: figures.reconnect,
        },
        Must {
            what: "folding what all proxies report each 5 s, of one core",
            unit: "%",
            most: 3.0,
            found: figures.graph.percent,
        },
        Must {
            what: "what the graph has counted",
            unit: "MiB",
            most: 64.0,
            found: figures.graph.graph_mib,
        },
        Must {
            what: "the whole graph, asked for and read, the longest of nine",
            unit: "ms",
            most: 200.0,
            found: figures.graph.answers.most(),
        },
        Must {
            what: "the whole controller while every proxy reports each second how its calls went, of one core",
            unit: "%",
            most: 30.0,
            found: figures.breaker_reports.percent,
        },
        Must {
            what: "from a Service's first failure until its breaker is open at every caller",
            unit: "s",
            most: 7.0,
            found: figures.breaker_reports.open,
        },
        Must {
            what: "requests that the API server turned away meanwhile",
            unit: "",
            most: 0.0,
            found: figures.rejected as f64,
        },
    ]
}

pub(crate) fn write(root: &Path, all: &[control::Figures], took: u64) -> Result<()> {
    let mut text = head("What the controller costs", "make bench-control", took);
    text.push_str(METHOD);
    musts(&mut text, &bounds(all));
    text.push_str("## How it grows\n\n![growth](control-cost.svg)\n\n| | ");
    row(&mut text, all, |f| format!("{} Pods", f.size.pods()));
    text.push_str(&format!("|---|{}\n", "---|".repeat(all.len())));
    start_rows(&mut text, all);
    graph_rows(&mut text, all);
    breaker_rows(&mut text, all);
    change_rows(&mut text, all);
    restart_rows(&mut text, all);
    answers(&mut text, all);
    text.push_str(&outlook(all));
    fs::write(root.join("bench/CONTROL.md"), text)?;
    fs::write(root.join("bench/control-cost.svg"), picture(all))?;
    Ok(())
}

/// Rows of the size, the start and memory.
fn start_rows(text: &mut String, all: &[control::Figures]) {
    line(text, all, "Services", |f| f.size.services.to_string());
    line(text, all, "streaming proxies", |f| f.proxies.to_string());
    line(text, all, "start to ready, s", |f| short(f.ready));
    line(text, all, "memory without proxies, MiB", |f| {
        short(f.alone.now)
    });
    line(text, all, "with all proxies", |f| short(f.connected.now));
    line(text, all, "after the changes (peak)", |f| {
        format!(
            "{} ({})",
            short(f.after_changes.now),
            short(f.after_changes.peak)
        )
    });
    line(text, all, "after the restart (peak)", |f| {
        format!(
            "{} ({})",
            short(f.after_restart.now),
            short(f.after_restart.peak)
        )
    });
    line(
        text,
        all,
        "all proxies new: certified and connected, s",
        |f| short(f.first_connect),
    );
}

/// Rows of the service graph.
fn graph_rows(text: &mut String, all: &[control::Figures]) {
    line(text, all, "edges of the graph", |f| {
        f.graph.edges.to_string()
    });
    line(text, all, "folding, % of a core", |f| {
        short(f.graph.percent)
    });
    line(text, all, "what it has counted, MiB", |f| {
        short(f.graph.graph_mib)
    });
    line(text, all, "the whole graph read p50, longest, ms", |f| {
        let all = &f.graph.answers;
        format!("{}, {}", short(all.p50()), short(all.most()))
    });
    line(text, all, "an answer, MiB", |f| short(f.graph.answer));
}

/// Rows of breakers of the whole mesh.
fn breaker_rows(text: &mut String, all: &[control::Figures]) {
    line(
        text,
        all,
        "Services that proxies tell of each second, each once for every caller",
        |f| f.breaker_reports.calls.to_string(),
    );
    line(
        text,
        all,
        "the controller without that, and with it, % of a core",
        |f| {
            format!(
                "{}, {}",
                short(f.breaker_reports.idle),
                short(f.breaker_reports.percent)
            )
        },
    );
    line(
        text,
        all,
        "callers of the one that fails, and until all hold back, s",
        |f| {
            format!(
                "{}, {}",
                f.breaker_reports.callers,
                short(f.breaker_reports.open)
            )
        },
    );
}

/// Rows of changes of endpoints and pods.
fn change_rows(text: &mut String, all: &[control::Figures]) {
    line(text, all, "endpoint changes", |f| f.changes.to_string());
    line(text, all, "change to acknowledgement p50, ms", |f| {
        short(f.each.p50())
    });
    line(text, all, "p99, ms", |f| short(f.each.p99()));
    line(text, all, "longest, ms", |f| short(f.each.most()));
    line(
        text,
        all,
        "begin of the write to the last proxy's p99, ms",
        |f| short(f.last.p99()),
    );
    line(text, all, "acknowledgements measured", |f| {
        f.each.len().to_string()
    });
    line(text, all, "compiling alone p50, p99, ms", |f| {
        format!("{}, {}", short(f.compiling.p50()), short(f.compiling.p99()))
    });
    line(text, all, "controller CPU per change, ms", |f| {
        short(f.cpu_per_change)
    });
    line(text, all, "batches per change", |f| {
        short(f.batches_per_change)
    });
    line(text, all, "pods that came, went or changed a label", |f| {
        f.pods_moved.to_string()
    });
    line(
        text,
        all,
        "their endpoint's change to acknowledgement p50, p99, ms",
        |f| format!("{}, {}", short(f.pods_each.p50()), short(f.pods_each.p99())),
    );
    line(text, all, "compiling alone meanwhile p50, p99, ms", |f| {
        let all = &f.pods_compiling;
        format!("{}, {}", short(all.p50()), short(all.p99()))
    });
    line(text, all, "controller CPU per pod, ms", |f| {
        short(f.cpu_per_pod)
    });
    line(
        text,
        all,
        "Revocations, and the write to each acknowledgement p50, p99, ms",
        |f| {
            let all = &f.revocations;
            let (p50, p99) = (short(all.each.p50()), short(all.each.p99()));
            format!("{}: {p50}, {p99}", all.objects)
        },
    );
    line(
        text,
        all,
        "begin of the write to the last proxy's p99, ms, of a Revocation",
        |f| short(f.revocations.last.p99()),
    );
}

/// Rows of the API server, and of the restart.
fn restart_rows(text: &mut String, all: &[control::Figures]) {
    line(text, all, "etcd and API server CPU per change, ms", |f| {
        short(f.api_cpu_per_change)
    });
    line(text, all, "reconnect of all, s", |f| short(f.reconnect));
    line(text, all, "controller CPU for it, s", |f| {
        short(f.reconnect_cpu)
    });
    line(text, all, "etcd and API server CPU for it, s", |f| {
        short(f.reconnect_api_cpu)
    });
    line(
        text,
        all,
        "another client's calls before: p50, p99, ms",
        |f| {
            format!(
                "{}, {}",
                short(f.probe_before.p50()),
                short(f.probe_before.p99())
            )
        },
    );
    line(text, all, "meanwhile: p50, p99, ms", |f| {
        format!(
            "{}, {}",
            short(f.probe_meanwhile.p50()),
            short(f.probe_meanwhile.p99())
        )
    });
    line(text, all, "requests turned away by the API server", |f| {
        f.rejected.to_string()
    });
    line(text, all, "load average before the changes", |f| {
        short(f.load)
    });
}

/// What the API server answered meanwhile, at the largest size.
fn answers(text: &mut String, all: &[control::Figures]) {
    let Some(last) = all.last() else {
        return;
    };
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

fn picture(all: &[control::Figures]) -> String {
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
    svg(
        "Cost of the controller (a Service per 10 Pods, a proxy per 5)",
        "Pods",
        &sizes,
        &panels,
    )
}

/// Lines through the two largest sizes, drawn out to 100 000 Pods: what is linear
/// stays so, and what is not shows in the table above.
fn outlook(all: &[control::Figures]) -> String {
    let [.., before, last] = all else {
        return String::new();
    };
    let far = |of: &dyn Fn(&control::Figures) -> f64| {
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
