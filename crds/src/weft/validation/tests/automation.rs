//! What releases and experiments mean, that a mistake costs all of the object, and that schema and
//! judge agree about both kinds.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;
use crate::weft::{CanaryReleaseSpec, FaultExperimentSpec};

const RELEASE: &str = include_str!("../../release.yaml");
const EXPERIMENT: &str = include_str!("../../experiment.yaml");

pub(super) fn read(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap()
}

fn release(written: &Value) -> (Release, Vec<Mistake>) {
    spec::<CanaryReleaseSpec>(Some(written), &AT)
}

fn experiment(written: &Value) -> (Experiment, Vec<Mistake>) {
    spec::<FaultExperimentSpec>(Some(written), &AT)
}

/// The spec with one field put there, whatever was.
pub(super) fn with(spec: &Value, pointer: &str, value: &Value) -> Value {
    let mut spec = spec.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match spec.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[field.parse::<usize>().unwrap()] = value.clone(),
        parent => parent[field] = value.clone(),
    }
    spec
}

/// The path of a pointer, as mistakes name it.
fn path(pointer: &str) -> String {
    let mut path = "spec".to_owned();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => path.push_str(&format!("[{index}]")),
            Err(_) => path.push_str(&format!(".{part}")),
        }
    }
    path
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn release_that_says_everything_means_what_it_says() {
    let (release, mistakes) = release(&read(RELEASE));
    assert_eq!(mistakes, []);
    assert_eq!(release.service, ServiceId::new("shop", "web"));
    assert_eq!((&*release.deployment, release.suspend), ("web", false));
    let steps: Vec<_> = release.steps.iter().collect();
    let shown = steps.iter().map(|step| (step.mirror, step.weight));
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, [(None, 100), (Some(10), 0), (None, 20), (None, 100)]);
    assert_eq!(&*steps[0].groups[0], "beta");
    assert!(steps[2].pause && steps[2].duration == secs(120));
    let rate = release.checks.error_rate.unwrap();
    assert_eq!((rate.tolerance, rate.max), (Some(0.01), Some(0.05)));
    let latency = release.checks.latency.unwrap();
    assert_eq!((latency.percentile, latency.tolerance), (99, Some(0.2)));
    assert_eq!(latency.max, Some(Duration::from_millis(80)));
    assert_eq!(release.deadline, secs(24 * 3600));
}

#[test]
fn short_release_has_the_defaults_that_are_documented() {
    let names = json!({"service": "web", "deployment": "web"});
    let (short, mistakes) = release(&names);
    assert_eq!(mistakes, []);
    let weights: Vec<u8> = short.steps.iter().map(|step| step.weight).collect();
    assert_eq!(weights, [5, 20, 50, 100]);
    assert!(short.steps.iter().all(|step| step.duration == secs(60)));
    assert_eq!((short.min_requests, short.suspend), (100, false));
    assert_eq!(short.checks, ReleaseChecks::DEFAULT);
    let empty = with(&names, "/checks", &json!({"errorRate": {}, "latency": {}}));
    assert_eq!(release(&empty).0.checks, ReleaseChecks::DEFAULT);
    // What is set is taken whole.
    let checks = json!({"errorRate": {"max": "5%"}, "latency": {"percentile": 0}});
    let (own, mistakes) = release(&with(&names, "/checks", &checks));
    assert_eq!(mistakes, []);
    assert_eq!(own.checks.error_rate.unwrap().tolerance, None);
    assert_eq!(own.checks.latency, None);
}

/// What is written where, which field is refused if it is another one, and what is said of it.
const RELEASE_MISTAKES: &str = r#"
/service | "web.other" | - | name of a Service
/deployment | "Web" | - | name of a Deployment
/steps | [] | - | leave the field out
/steps/0/weight | 101 | - | must be from 1 to 100
/steps/0/weight | null | /steps/0 | holds neither of mirror and weight
/steps/0/mirror | 5 | /steps/0 | holds both of mirror and weight
/steps/0/duration | "25h" | - | must be from 1s to 24h
/steps/0/matches/0/kind | "TCPRoute" | - | must be HTTPRouteGroup
/steps/0/matches/0/apiGroup | "x" | - | must be specs.smi-spec.io
/steps/1/matches | [{"kind": "HTTPRouteGroup", "name": "beta"}] | - | this step has mirror
/steps/3/weight | 10 | - | weights never fall
/minRequests | -1 | - | must be from 0 to 1000000
/checks/errorRate/tolerance | "1" | - | such as "5%"
/checks/errorRate/max | "91%" | - | must be from 0.01% to 90%
/checks/latency/percentile | 98 | - | must be 50, 90, 95 or 99
/checks/latency/tolerance | "0.5%" | - | must be from 1% to 900%
/checks/latency/max | "0s" | - | must be from 1ms to 1m
/checks/restarts/max | 1001 | - | must be from 0 to 1000
/deadline | "59s" | - | must be from 1m to 168h
/deadline | "8m" | - | the steps alone take
"#;

const EXPERIMENT_MISTAKES: &str = r#"
/targetRef/kind | "service" | - | you may mean Service
/targetRef/name | "a.b" | - | name of a Service
/targetRef/port | 0 | - | a port is from 1 to 65535
/routes | [] | - | remove the field to mean all
/routes/0/kind | "TCPRoute" | - | must be HTTPRouteGroup
/sources | [] | - | remove the field to mean all
/sources/0/kind | "Pod" | - | must be
/endpoints/labels | {"-a": "b"} | /endpoints/labels[-a] | no label that a pod can have
/endpoints/zone | "a b" | - | name of a zone
/share | "0%" | - | must be from 0.01% to 100%
/share | "60%" | - | write at most 50%
/fault | {} | - | holds none of delay, abort, refuse and reset
/fault/reset | {} | /fault | a call ends once
/fault/delay | "31s" | - | must be from 1ms to 30s
/fault/abort/httpStatus | 200 | - | must be from 400 to 599
/fault/abort/grpcStatus | 0 | - | must be from 1 to 16
/duration | "9s" | - | must be from 10s to 1h
/checks | [] | - | proves nothing
/checks/0/service | "Checkout" | - | name of a Service
/checks/0/errorRate | {} | - | neither of max and tolerance
/checks/0/errorRate/max | "0%" | - | must be from 0.01% to 90%
/schedule/cron | "@daily" | - | must have five fields
/schedule/timeZone | "+02:00" | - | such as "Europe/Berlin"
"#;

/// Each row: changed at the first, refused at the third, with this text.
pub(super) fn rows(table: &str) -> Vec<(String, Value, String, String)> {
    let rows = table.trim().lines().map(|row| {
        let [pointer, value, field, text] = row.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let field = if field == "-" { pointer } else { field };
        let value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{row}: {error}"));
        (pointer.to_owned(), value, path(field), text.to_owned())
    });
    rows.collect()
}

#[test]
fn mistake_in_release_costs_all_and_names_remedy() {
    for (pointer, value, field, text) in rows(RELEASE_MISTAKES) {
        let (release, mistakes) = release(&with(&read(RELEASE), &pointer, &value));
        assert_eq!(refused(&mistakes), [field], "{pointer}: {mistakes:?}");
        assert!(mistakes[0].text.contains(&text), "{mistakes:?}");
        assert!(
            mistakes[0].text.ends_with("; the release has no effect"),
            "{mistakes:?}"
        );
        assert!(release.suspend && release.steps.is_empty(), "{pointer}");
    }
}

#[test]
fn mistake_in_experiment_costs_all_and_names_remedy() {
    for (pointer, value, field, text) in rows(EXPERIMENT_MISTAKES) {
        let (experiment, mistakes) = experiment(&with(&read(EXPERIMENT), &pointer, &value));
        assert_eq!(refused(&mistakes), [field], "{pointer}: {mistakes:?}");
        assert!(mistakes[0].text.contains(&text), "{mistakes:?}");
        assert!(experiment.suspend && experiment.share == 0.0, "{pointer}");
        assert_eq!(experiment.checks, [], "{pointer}");
    }
}

#[test]
fn list_for_an_object_is_never_read_by_position() {
    let rates = with(&read(EXPERIMENT), "/checks/0/errorRate", &json!(["90%"]));
    let (experiment, mistakes) = experiment(&rates);
    assert_eq!(refused(&mistakes), ["spec.checks[0].errorRate"]);
    assert!(experiment.suspend);
    let checks = with(&read(RELEASE), "/checks", &json!([{"max": "90%"}]));
    let (release, mistakes) = release(&checks);
    assert_eq!(refused(&mistakes), ["spec.checks"]);
    assert!(release.suspend);
}

#[test]
fn experiment_that_says_everything_means_what_it_says() {
    let (experiment, mistakes) = experiment(&read(EXPERIMENT));
    assert_eq!(mistakes, []);
    assert_eq!(experiment.target, ServiceId::new("shop", "payments"));
    assert_eq!((experiment.port, experiment.share), (Some(8080), 0.1));
    assert_eq!(&*experiment.routes[0].group, "customers");
    assert_eq!(&*experiment.sources[0].name, "web");
    assert_eq!(experiment.endpoints.zone.as_deref(), Some("eu-1"));
    let (key, value) = experiment.endpoints.labels.first_key_value().unwrap();
    assert_eq!((&**key, &**value), ("shard", "a"));
    assert_eq!(experiment.fault.delay, Some(Duration::from_millis(300)));
    let abort = FaultEnding::Abort {
        http_status: 503,
        grpc_status: Some(14),
    };
    assert_eq!(experiment.fault.ending, Some(abort));
    assert_eq!(experiment.duration, secs(300));
    let check = &experiment.checks[0];
    assert_eq!(check.service, ServiceId::new("shop", "checkout"));
    assert_eq!(check.error_rate.max, Some(0.02));
    assert_eq!(check.error_rate.tolerance, Some(0.005));
    let schedule = experiment.schedule.unwrap();
    assert_eq!(&*schedule.time_zone, "Europe/Berlin");
    assert!(!experiment.suspend);
}

#[test]
fn check_of_aborted_target_is_warned_of() {
    let target = json!("payments");
    let (_, mistakes) = experiment(&with(&read(EXPERIMENT), "/checks/0/service", &target));
    let [warning] = mistakes.as_slice() else {
        panic!("{mistakes:?}");
    };
    let found = (warning.severity, warning.field.as_str());
    assert_eq!(found, (Severity::Warn, "spec.checks"));
    let mut delayed = with(&read(EXPERIMENT), "/checks/0/service", &target);
    delayed["fault"] = json!({"delay": "300ms"});
    assert_eq!(experiment(&delayed).1, [], "delayed calls reach it");
}

/// Schema and judge were written apart: whatever one refuses at its bounds, the other does too.
pub(super) fn agree<S: Validate + JsonSchema>(everything: &Value) -> usize {
    let schema = schema::<S>();
    let mut probes: Vec<(String, Value)> = Vec::new();
    each_node(&schema, "", &mut |node, at| {
        let pointer = at.replace("[]", "/0").replace('.', "/");
        let Some(there) = everything.pointer(&pointer) else {
            return;
        };
        for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
            if let Some(bound) = node[bound].as_i64() {
                probes.push((pointer.clone(), json!(bound)));
                probes.push((pointer.clone(), json!(bound + beyond)));
            }
        }
        for known in node["enum"].as_array().into_iter().flatten() {
            probes.push((pointer.clone(), known.clone()));
            if let Some(known) = known.as_str() {
                probes.push((pointer.clone(), json!(known.to_lowercase())));
            }
        }
        if let (Some(most), Some(one)) = (node["maxItems"].as_u64(), there.get(0)) {
            for count in [1, most, most + 1] {
                let numbered = |n: u64| {
                    let mut one = one.clone();
                    for key in ["name", "service"] {
                        if one.get(key).is_some() {
                            one[key] = json!(format!("n{n}"));
                        }
                    }
                    if one.get("port").is_some() {
                        one["port"] = json!(1000 + n);
                    }
                    one
                };
                probes.push((pointer.clone(), (0..count).map(numbered).collect()));
            }
        }
    });
    let mut tried = 0;
    for (pointer, value) in probes {
        // Such a caller has names of its own.
        if value == "Group" {
            continue;
        }
        let written = with(everything, &pointer, &value);
        let by_schema = violations(&schema, &written);
        let (_, mistakes) = spec::<S>(Some(&written), &AT);
        assert_eq!(
            by_schema.is_empty(),
            refused(&mistakes).is_empty(),
            "{pointer} = {value}: {by_schema:?} and {mistakes:?}"
        );
        tried += 1;
    }
    tried
}

#[test]
fn schema_and_judge_of_automation_agree_at_bounds() {
    let tried = agree::<CanaryReleaseSpec>(&read(RELEASE));
    assert!(tried > 20, "{tried}");
    let tried = agree::<FaultExperimentSpec>(&read(EXPERIMENT));
    assert!(tried > 20, "{tried}");
}
