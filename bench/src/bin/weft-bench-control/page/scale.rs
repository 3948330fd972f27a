//! evidence/scale.md: what SMI objects cost.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Must, curve, head, line, musts, row};
use crate::curves::{Panel, short, svg};
use crate::scale;

/// The bounds of `make scale`, at the size for which they hold.
pub(crate) fn bounds(all: &[scale::Figures]) -> Vec<Must> {
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

pub(crate) fn write(root: &Path, all: &[scale::Figures], took: u64) -> Result<()> {
    let mut text = head("Scale", "make scale", took);
    text.push_str(
        "A real etcd and a real API server hold Services, EndpointSlices, Nodes and Pods that no kubelet runs, and \
         the SMI objects. The controller is the release program with the roles and defaults of the chart, the \
         metrics API included. 20 proxies hold a stream over mutual TLS, each certified with its pod's own token. \
         One object is changed at a time, in turns an HTTPRouteGroup, a TrafficTarget and a TrafficSplit; the time \
         runs from the API server's answer to the write until the proxy that needs it has the change and \
         acknowledges it, so watch, compile, publish and transport are in it.\n\n",
    );
    musts(&mut text, &bounds(all));
    text.push_str("## How it grows\n\n![growth](scale.svg)\n\n");
    text.push_str("| | ");
    row(&mut text, all, |f| format!("{} Services", f.size.services));
    text.push_str(&format!("|---|{}\n", "---|".repeat(all.len())));
    rows(&mut text, all);
    text.push_str(
        "\nThe peak of memory belongs to the start: every object is listed and read once, and every status written. \
         CPU per change includes writing the changed object's status.\n",
    );
    fs::write(root.join("evidence/scale.md"), text)?;
    fs::write(root.join("evidence/scale.svg"), picture(all))?;
    Ok(())
}

fn rows(text: &mut String, all: &[scale::Figures]) {
    line(text, all, "Pods", |f| f.size.pods().to_string());
    line(text, all, "TrafficTargets, HTTPRouteGroups each", |f| {
        f.size.targets.to_string()
    });
    line(text, all, "TrafficSplits", |f| f.size.splits.to_string());
    line(text, all, "memory, MiB", |f| short(f.memory.now));
    line(text, all, "memory at its peak, MiB", |f| {
        short(f.memory.peak)
    });
    line(text, all, "start to ready, s", |f| short(f.ready));
    line(text, all, "changes", |f| f.changes.to_string());
    line(
        text,
        all,
        "write's answer to acknowledgement p50, ms",
        |f| short(f.delays.p50()),
    );
    line(text, all, "p99, ms", |f| short(f.delays.p99()));
    line(text, all, "longest, ms", |f| short(f.delays.most()));
    line(
        text,
        all,
        "begin of the write to acknowledgement p99, ms",
        |f| short(f.whole.p99()),
    );
    line(text, all, "compiling alone p50, p99, ms", |f| {
        format!("{}, {}", short(f.compiling.p50()), short(f.compiling.p99()))
    });
    line(text, all, "controller CPU per change, ms", |f| {
        short(f.cpu_per_change)
    });
    line(text, all, "load average before", |f| short(f.load));
}

fn picture(all: &[scale::Figures]) -> String {
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
    svg(
        "Cost of SMI objects (2 targets, 2 groups, half a split per Service)",
        "Services",
        &sizes,
        &panels,
    )
}
