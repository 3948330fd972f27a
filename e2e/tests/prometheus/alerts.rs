//! Rules over invented series, evaluated by promtool: alerts.yaml has for every alert when it
//! fires and when it must not, records.yaml the results of the recording rules.
//!
//! Claims: attack-88, observe-84

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use e2e::harness::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::programs::{folder, output, write};
use crate::sources;

/// Values by series, in promtool's notation.
type Series = BTreeMap<String, String>;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    alert: String,
    series: Series,
    /// The minute at which it fires.
    fires: u32,
    /// Labels of what fires then.
    of: Vec<String>,
    /// Minutes at which it must not.
    quiet: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Records {
    series: Series,
    /// Values by labels by name.
    records: BTreeMap<String, BTreeMap<String, f64>>,
}

fn cases() -> anyhow::Result<Vec<Case>> {
    Ok(serde_yaml_ng::from_str(&sources::read(
        "e2e/tests/prometheus/alerts.yaml",
    )?)?)
}

/// Severity by alert.
fn severities() -> anyhow::Result<BTreeMap<String, String>> {
    let alerts = sources::rules()?
        .into_iter()
        .filter(sources::Rule::is_alert);
    alerts
        .map(|rule| {
            let severity = rule.whole["labels"]["severity"].as_str();
            let severity = severity.context("no severity")?.to_owned();
            Ok((rule.name, severity))
        })
        .collect()
}

fn given(series: &Series) -> Vec<Value> {
    let all = series.iter();
    all.map(|(series, values)| json!({"series": series, "values": values}))
        .collect()
}

/// A case as promtool reads it.
fn test_of(case: &Case, severity: &str) -> Value {
    let labels = format!("alertname={:?},alertstate=\"firing\"", case.alert);
    let query = format!("ALERTS{{{labels}}}");
    let fired = case.of.iter().map(|own| {
        let own = if own.is_empty() {
            String::new()
        } else {
            format!(",{own}")
        };
        json!({"labels": format!("ALERTS{{{labels},severity={severity:?}{own}}}"), "value": 1})
    });
    let mut queries = vec![json!({
        "expr": query,
        "eval_time": format!("{}m", case.fires),
        "exp_samples": fired.collect::<Vec<_>>(),
    })];
    queries.extend(case.quiet.iter().map(
        |minute| json!({"expr": query, "eval_time": format!("{minute}m"), "exp_samples": []}),
    ));
    json!({
        "name": case.alert,
        "interval": "1m",
        "input_series": given(&case.series),
        "promql_expr_test": queries,
    })
}

/// Runs these tests of the chart's rules by promtool.
fn judged(name: &str, tests: &[Value]) -> anyhow::Result<String> {
    let rules = sources::file("charts/weft/monitoring/rules.yaml");
    let file = json!({
        "rule_files": [rules.canonicalize()?],
        "evaluation_interval": "1m",
        "tests": tests,
    });
    let path = write(&folder(name)?, "tests.json", &file)?;
    output("promtool", &["test", "rules", &path])
}

// Claims: observability-16
#[test]
fn every_alert_fires_for_its_cause_only() -> Outcome {
    let (cases, severities) = (cases()?, severities()?);
    let tried: BTreeSet<&String> = cases.iter().map(|case| &case.alert).collect();
    assert_eq!(tried, severities.keys().collect());
    let mut tests = Vec::new();
    for case in &cases {
        assert!(
            !case.of.is_empty() && !case.quiet.is_empty(),
            "{}",
            case.alert
        );
        tests.push(test_of(case, &severities[&case.alert]));
    }
    judged("alerts", &tests)?;
    Ok(())
}

/// Control of the test above: it fails when an expected alert does not fire, and when an
/// unexpected one fires.
// Claims: observability-16
#[test]
fn missing_or_unexpected_alert_is_detected() -> Outcome {
    let (cases, severities) = (cases()?, severities()?);
    for case in cases {
        let severity = &severities[&case.alert];
        let early = Case {
            fires: case.quiet[0],
            quiet: Vec::new(),
            ..case.clone()
        };
        let silent = Case {
            of: Vec::new(),
            quiet: Vec::new(),
            ..case
        };
        for wrong in [early, silent] {
            let found = judged("wrong", &[test_of(&wrong, severity)]);
            let found = found
                .err()
                .with_context(|| format!("{}: nothing", wrong.alert))?;
            assert!(found.to_string().contains("got:"), "{found}");
        }
    }
    Ok(())
}

#[test]
fn records_hold_success_and_latency_seen_by_callers() -> Outcome {
    let text = sources::read("e2e/tests/prometheus/records.yaml")?;
    let given_and_made: Records = serde_yaml_ng::from_str(&text)?;
    let rules = sources::rules()?;
    let names: BTreeSet<&String> = rules
        .iter()
        .filter(|rule| !rule.is_alert())
        .map(|rule| &rule.name)
        .collect();
    assert_eq!(names, given_and_made.records.keys().collect());
    let queries = given_and_made.records.iter().map(|(name, samples)| {
        let samples = samples.iter();
        let samples: Vec<Value> = samples
            .map(|(labels, value)| json!({"labels": format!("{name}{{{labels}}}"), "value": value}))
            .collect();
        json!({"expr": name, "eval_time": "20m", "exp_samples": samples})
    });
    judged(
        "records",
        &[json!({
            "name": "records",
            "interval": "1m",
            "input_series": given(&given_and_made.series),
            "promql_expr_test": queries.collect::<Vec<_>>(),
        })],
    )?;
    Ok(())
}
