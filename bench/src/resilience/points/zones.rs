//! Calls stay in their zone while that has room for them, and leave it when it has none.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, Section, percent, row, shared};
use crate::resilience::application::{Behaviour, METHOD, WORK, WORKERS};
use crate::resilience::client::Call;
use crate::resilience::cluster::{Asked, Pod};
use crate::resilience::envoy::Extra;
use crate::resilience::generator::Load;
use crate::resilience::judge::{self, GOOD_WITHIN};
use crate::resilience::scenario::{Mesh, Scenario};

const OWN: &str = "zone-a";
const OTHER: &str = "zone-b";
const CALLERS: usize = 4;
/// The first so many instances run where their callers do.
const NEAR: usize = 2;
const PODS: [Pod; 10] = [
    Pod::caller("caller-1").in_zone(OWN),
    Pod::caller("caller-2").in_zone(OWN),
    Pod::caller("caller-3").in_zone(OWN),
    Pod::caller("caller-4").in_zone(OWN),
    Pod::of("web", "web-1", Behaviour::Works).in_zone(OWN),
    Pod::of("web", "web-2", Behaviour::Works).in_zone(OWN),
    Pod::of("web", "web-3", Behaviour::Works).in_zone(OTHER),
    Pod::of("web", "web-4", Behaviour::Works).in_zone(OTHER),
    Pod::of("web", "web-5", Behaviour::Works).in_zone(OTHER),
    Pod::of("web", "web-6", Behaviour::Works).in_zone(OTHER),
];
/// Of what the own zone can do at most, and for so many seconds.
const CALM: (f64, u64) = (0.25, 20);
const DOUBLE: (f64, u64) = (2.0, 60);

/// What came of one load.
struct Step {
    good: f64,
    /// The share of requests that came to instances of the own zone.
    near: f64,
}

struct ZoneRun {
    calm: Step,
    double: Step,
}

fn get(_: u64) -> Call {
    Call {
        method: "GET",
        path: METHOD,
        headers: Vec::new(),
    }
}

/// Requests per second that the workers of the own zone do if none ever waits for anything.
fn capacity() -> f64 {
    (NEAR * WORKERS) as f64 / WORK.as_secs_f64()
}

fn step(bench: &Bench, scenario: &mut Scenario, (part, seconds): (f64, u64)) -> Result<Step> {
    let time = bench.seconds(seconds);
    let load = Load {
        rate: part * capacity(),
        time,
        patience: GOOD_WITHIN,
        call: get,
    };
    let callers = scenario.load(shared(load, CALLERS), false, |_, _| Ok(()))?;
    let came = scenario.apps_of("web").map(|app| {
        let counted = [app.counted()];
        judge::requests(&counted, Duration::ZERO, time + GOOD_WITHIN)
    });
    let came: Vec<f64> = came.collect();
    let all: f64 = came.iter().sum();
    let near: f64 = came.iter().take(NEAR).sum();
    Ok(Step {
        good: judge::good(&judge::all(&callers)),
        near: near / all.max(1.0),
    })
}

fn both(bench: &Bench, mesh: &Mesh) -> Result<ZoneRun> {
    eprintln!("zones: {}", mesh.name());
    let requested = Asked {
        near: true,
        ..Asked::default()
    };
    let mut scenario = bench.start(mesh, &PODS, requested)?;
    Ok(ZoneRun {
        calm: step(bench, &mut scenario, CALM)?,
        double: step(bench, &mut scenario, DOUBLE)?,
    })
}

/// Weft alone.
pub(in crate::resilience) fn own_zone_first(bench: &Bench) -> Result<Section> {
    let weft = bench.some_of([true, false, false]);
    let all = weft.each(Extra::default(), |mesh| both(&weft, mesh))?;
    let rows = vec![
        row(
            "a quarter of what the own zone can do: requests that stayed in it".to_owned(),
            "≥ 95 %",
            &all,
            |run| percent(run.calm.near),
            |run| run.calm.near >= 0.95,
        ),
        row(
            "a quarter of what the own zone can do: good calls".to_owned(),
            "",
            &all,
            |run| percent(run.calm.good),
            |_| true,
        ),
        row(
            "twice what the own zone can do: good calls".to_owned(),
            "≥ 95 %",
            &all,
            |run| percent(run.double.good),
            |run| run.double.good >= 0.95,
        ),
        row(
            "twice what the own zone can do: requests that stayed in it".to_owned(),
            "",
            &all,
            |run| percent(run.double.near),
            |_| true,
        ),
    ];
    Ok(Section {
        title: "The own zone first, while it has room",
        how: format!(
            "{NEAR} of {} instances run in the zone of their four callers, each with {WORKERS} workers that are busy for 10 ms with a request, so that the zone does {:.0} requests per second at most. A quarter of that is offered for {} s, and then twice as much as that for {} s, which the others have room for; good is an answer 200 within one second. Weft has a TrafficPolicy with `balance: {{locality: PreferSameZone}}` and nothing else. Envoy takes no part: Istio prefers a zone only where outlier detection is set up, which its defaults do not have.",
            PODS.len() - CALLERS,
            capacity(),
            CALM.1,
            DOUBLE.1
        ),
        third: "Envoy with more",
        rows,
        picture: None,
    })
}

#[cfg(test)]
mod tests {
    use super::{CALLERS, DOUBLE, NEAR, PODS, capacity};

    #[test]
    fn other_zones_can_serve_excess_of_own_zone() {
        let instances = PODS.len() - CALLERS;
        let elsewhere = capacity() * (instances - NEAR) as f64 / NEAR as f64;
        let excess = (DOUBLE.0 - 1.0) * capacity();
        assert!(excess * 1.5 <= elsewhere, "{excess} of {elsewhere}");
    }
}
