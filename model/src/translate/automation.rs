//! Translates CanaryReleases and FaultExperiments into facts: the spec, and of the status the state
//! of the run, which proxies carry out.
//!
//! Only the controller that leads may write these statuses. What cannot be read in one orders
//! nothing.

use std::sync::Arc;

use crds::smi::validation::Cluster;
use crds::weft::{CanaryReleaseSpec, ExperimentPhase, FaultExperimentSpec, ReleasePhase};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;

use super::smi::validated;
use crate::world::{ExperimentFacts, ExperimentOrder, ReleaseFacts, ReleaseOrder};

/// A CanaryRelease.
pub fn canary_release(object: &DynamicObject, cluster: &Cluster) -> ReleaseFacts {
    let (meta, spec) = validated::<CanaryReleaseSpec>(object, cluster);
    let order = object.data.get("status").map(release_order);
    ReleaseFacts {
        meta,
        spec,
        order: order.unwrap_or_default(),
    }
}

fn release_order(status: &Value) -> ReleaseOrder {
    let revision = |which: &str| {
        let revision = status.pointer(&format!("/{which}/revision"))?.as_str()?;
        (!revision.is_empty()).then(|| Arc::from(revision))
    };
    let run = |field: &str| status.pointer(&format!("/run/{field}"))?.as_u64();
    let weight = run("weight").unwrap_or(0).min(100);
    ReleaseOrder {
        phase: ReleasePhase::named(phase(status)).unwrap_or_default(),
        stable: revision("stable"),
        candidate: revision("candidate"),
        step: run("step")
            .and_then(|step| u32::try_from(step).ok())
            .unwrap_or(0),
        weight: u8::try_from(weight).unwrap_or(0),
    }
}

/// A FaultExperiment.
pub fn fault_experiment(object: &DynamicObject, cluster: &Cluster) -> ExperimentFacts {
    let (meta, spec) = validated::<FaultExperimentSpec>(object, cluster);
    let order = object.data.get("status").map(experiment_order);
    ExperimentFacts {
        meta,
        spec,
        order: order.unwrap_or_default(),
    }
}

fn experiment_order(status: &Value) -> ExperimentOrder {
    let ends_at = status.pointer("/run/endsAt").and_then(Value::as_str);
    let ends_at = ends_at.and_then(|at| at.parse::<Timestamp>().ok());
    let run = status.pointer("/run/number").and_then(Value::as_i64);
    ExperimentOrder {
        phase: ExperimentPhase::named(phase(status)).unwrap_or_default(),
        run: run.unwrap_or(0),
        ends_at: ends_at.map(Timestamp::as_second),
    }
}

fn phase(status: &Value) -> &str {
    let phase = status.get("phase").and_then(Value::as_str);
    phase.unwrap_or_default()
}
