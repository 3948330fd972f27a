//! Claims about what compiling makes of a cluster.
//!
//! Claims: smi-5

mod access;
mod accounts;
mod balance;
mod bindings;
mod destinations;
mod endpoints;
mod external;
mod faults;
mod gateways;
mod modes;
mod order;
mod protocols;
mod releases;
mod revocations;
mod route_names;
mod service_routes;
mod splits;
mod telemetry;
mod traffic;
mod versions;

use serde_json::{Value, json};

use crate::fixtures::group;
use crate::problem::{ConditionType, ObjectReport, Problems, Reason, Severity};

/// The report on an SMI object of namespace `shop`, as `Kind name`.
fn report<'a>(problems: &'a Problems, object: &str) -> &'a ObjectReport {
    let (kind, name) = object.split_once(' ').unwrap();
    let found = problems
        .reports
        .iter()
        .find(|(object, _)| object.kind.as_str() == kind && *object.name == *name);
    found.unwrap_or_else(|| panic!("no report on {object}")).1
}

/// Reasons and fields of the problems that make a condition false.
fn failures(problems: &Problems, of: ConditionType) -> Vec<(Reason, &str)> {
    let problems = problems.list.iter();
    problems
        .filter(|p| p.condition == of && p.severity == Severity::Failure)
        .map(|problem| (problem.reason, problem.field.as_str()))
        .collect()
}

/// A group whose expressions are charged 4 MiB, as much as one object may have: each of the 256
/// the least that is charged for one. No other group has one of them.
fn heavy_group(name: &str) -> Value {
    let matches = (0..64).map(|at| {
        let expression = |part: u8| format!("/{name}/{at}/{part}/[a-c]+x");
        let headers = json!({"x-a": expression(1), "x-b": expression(2), "x-c": expression(3)});
        json!({"name": format!("m{at}"), "pathRegex": expression(0), "headers": headers})
    });
    group(name, matches.collect())
}
