//! evidence/scale.md: what SMI objects cost.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Must, curve, head, line, musts, row};
use crate::curves::{Panel, short, svg};
use crate::scale;

/// The bounds of `make scale`, at the size for which they hold; those of routes where they were
/// measured at it.
pub(crate) fn bounds(all: &[scale::Figures], routed: Option<&scale::Figures>) -> Vec<Must> {
    let Some(figures) = promised(all) else {
        return Vec::new();
    };
    let mut musts = vec![
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
    ];
    musts.extend(
        routed
            .into_iter()
            .flat_map(|routed| of_routes(figures, routed)),
    );
    musts
}

fn promised(all: &[scale::Figures]) -> Option<&scale::Figures> {
    all.iter()
        .rfind(|figures| figures.size.services <= scale::PROMISED)
}

/// With a route for each Service, beside the same without.
fn of_routes(without: &scale::Figures, routed: &scale::Figures) -> [Must; 3] {
    [
        Must {
            what: "controller memory that as many HTTPRoutes as Services take, at its peak",
            unit: "MiB",
            most: 40.0,
            found: (routed.memory.peak - without.memory.peak).max(0.0),
        },
        Must {
            what: "one change of an HTTPRoute, write to acknowledgement, p99",
            unit: "ms",
            most: 500.0,
            found: routed.delays.p99(),
        },
        Must {
            what: "changes of HTTPRoutes that did not arrive",
            unit: "",
            most: 0.0,
            found: routed.lost as f64,
        },
    ]
}

pub(crate) fn write(
    root: &Path,
    all: &[scale::Figures],
    routed: Option<&scale::Figures>,
    took: u64,
) -> Result<()> {
    let mut text = head("Scale", "make scale", took);
    text.push_str(
        "A real etcd and a real API server hold Services, EndpointSlices, Nodes and Pods that no kubelet runs, and \
         the SMI objects. The controller is the release program with the roles and defaults of the chart, the \
         metrics API included. 20 proxies hold a stream over mutual TLS, each certified with its pod's own token. \
         One object is changed at a time, in turns an HTTPRouteGroup, a TrafficTarget and a TrafficSplit; the time \
         runs from the API server's answer to the write until the proxy that needs it has the change and \
         acknowledges it, so watch, compile, publish and transport are in it.\n\n",
    );
    musts(&mut text, &bounds(all, routed));
    text.push_str("## How it grows\n\n![growth](scale.svg)\n\n");
    text.push_str("| | ");
    row(&mut text, all, |f| format!("{} Services", f.size.services));
    text.push_str(&format!("|---|{}\n", "---|".repeat(all.len())));
    rows(&mut text, all);
    text.push_str(
        "\nThe peak of memory belongs to the start: every object is listed and read once, and every status written. \
         CPU per change includes writing the changed object's status.\n",
    );
    if let (Some(without), Some(routed)) = (promised(all), routed) {
        text.push_str(&routes(without, routed));
    }
    fs::write(root.join("evidence/scale.md"), text)?;
    fs::write(root.join("evidence/scale.svg"), picture(all))?;
    Ok(())
}

/// The same size without routes and with one for each Service.
fn routes(without: &scale::Figures, routed: &scale::Figures) -> String {
    let services = without.size.services;
    let mut text = format!(
        "\n## Routes of the Gateway API\n\nOne HTTPRoute for each of {services} Services, with four matches in \
         three rules, beside all else; routes of Services with a TrafficSplit override it. One route is changed at \
         a time.\n\n| | without | with {services} routes |\n|---|---|---|\n"
    );
    rows(&mut text, &[without.clone(), routed.clone()]);
    text
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
