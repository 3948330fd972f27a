//! Every query of a dashboard has an answer in a mesh with some of everything.
//!
//! Claims: observe-84

use std::collections::BTreeMap;

use anyhow::Context as _;
use e2e::harness::Outcome;
use serde_json::{Value, json};

use crate::programs::{folder, output, write};
use crate::sources;

/// What Grafana puts in place of these; namespace, workload and route are those of series.yaml.
const VARIABLES: [(&str, &str); 4] = [
    ("$__rate_interval", "5m"),
    ("$namespace", "shop"),
    ("$workload", "web"),
    ("$route", "site/read"),
];

/// One where `query` has an answer that is a number, else nothing.
fn query_test(query: &str) -> Value {
    let mut query = query.to_owned();
    for (variable, value) in VARIABLES {
        query = query.replace(variable, value);
    }
    json!({
        "expr": format!("count(({query}) >= 0) > bool 0"),
        "eval_time": "20m",
        "exp_samples": [{"labels": "{}", "value": 1}],
    })
}

/// Lets promtool answer all queries from series.yaml.
fn answered(name: &str, queries: &[String]) -> anyhow::Result<String> {
    let text = sources::read("e2e/tests/prometheus/series.yaml")?;
    let series: Vec<BTreeMap<String, String>> = serde_yaml_ng::from_str(&text)?;
    let given = series.iter().flatten();
    let given: Vec<Value> = given
        .map(|(series, values)| json!({"series": series, "values": values}))
        .collect();
    let query_test: Vec<Value> = queries.iter().map(|query| query_test(query)).collect();
    let file = json!({
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": given, "promql_expr_test": query_test}],
    });
    let path = write(&folder(name)?, "tests.json", &file)?;
    output("promtool", &["test", "rules", &path])
}

// Claims: observability-16
#[test]
fn every_query_of_a_dashboard_has_an_answer() -> Outcome {
    let boards = sources::dashboards()?;
    let queries = boards.iter().flat_map(|(_, board)| {
        let panels = sources::panels(board);
        panels.flat_map(sources::queries).collect::<Vec<_>>()
    });
    let queries: Vec<String> = queries.collect();
    assert!(queries.len() > 80, "{}", queries.len());
    answered("dashboards", &queries)?;
    Ok(())
}

/// Control: a label that no series has, a rate that is no number, and no query at all.
// Claims: observability-16
#[test]
fn a_query_without_an_answer_is_found() -> Outcome {
    for (query, error) in [
        (
            "sum(weft_open_connections{namespace=\"$namespace\",workload=\"none\"})",
            "nil",
        ),
        (
            "sum(weft_ejected_endpoints) / sum(weft_ejected_endpoints)",
            "nil",
        ),
        ("sum(rate(weft_requests_total[$__interval]))", "parse error"),
    ] {
        let found = answered("unanswered", &[query.to_owned()]).err();
        let found = found
            .with_context(|| format!("{query} has an answer"))?
            .to_string();
        assert!(found.contains(error), "{query}: {found}");
    }
    answered("answered", &["sum(weft_open_connections)".to_owned()])?;
    Ok(())
}
