//! The chart's rules, alerts and dashboards query existing metrics, and each alert links to
//! its repair. The tier `prometheus` tests with a real Prometheus that they load and fire.
//!
//! Claims: observe-83

mod counted;
mod page;
mod promql;
mod sources;
mod thresholds;

use std::collections::BTreeSet;

use anyhow::Context as _;
use e2e::harness::Outcome;
use serde_json::Value;

use counted::Counted;
use sources::{dashboards, panels, queries, read, rules};

/// Older ones are migrated by Grafana, which then calls them changed.
const SCHEMA: u64 = 39;
/// Columns of Grafana's grid.
const GRID: u64 = 24;

fn counted() -> anyhow::Result<Counted> {
    let counted = Counted::new(&read("docs/metrics.md")?, &rules()?);
    anyhow::ensure!(counted.len() > 70, "only {} metrics", counted.len());
    Ok(counted)
}

// Claims: observability-16
#[test]
fn every_rule_queries_existing_metrics_labels_and_values() -> Outcome {
    let counted = counted()?;
    for rule in rules()? {
        let missing = counted.missing(counted::query(&rule));
        assert!(missing.is_empty(), "{}: {missing:?}", rule.name);
    }
    Ok(())
}

// Claims: observability-16
#[test]
fn every_dashboard_queries_existing_metrics_labels_and_values() -> Outcome {
    let counted = counted()?;
    for (name, board) in dashboards()? {
        for panel in panels(&board) {
            for query in queries(panel) {
                let missing = counted.missing(&query);
                assert!(
                    missing.is_empty(),
                    "{name}, {}: {missing:?}",
                    panel["title"]
                );
            }
        }
        let variables = board["templating"]["list"].as_array().context("no list")?;
        for variable in variables.iter().filter(|one| one["type"] == "query") {
            let query = variable["query"]["query"].as_str().context("no query")?;
            let missing = counted.missing(query);
            assert!(
                missing.is_empty(),
                "{name}, {}: {missing:?}",
                variable["name"]
            );
        }
    }
    Ok(())
}

/// Control of the two tests above.
// Claims: observability-16
#[test]
fn a_query_for_what_nothing_counts_is_found() -> Outcome {
    let counted = counted()?;
    for (query, missing) in [
        (
            "sum(weft_request_total)",
            "nothing counts weft_request_total",
        ),
        ("rate(weft_request_duration_seconds[5m])", "nothing counts"),
        ("weft_open_connections{service=\"\"}", "no label service"),
        (
            "sum by (path) (rate(weft_requests_total[5m]))",
            "no label path",
        ),
        (
            "weft:service_requests:rate5m{namespace=\"$namespace\"}",
            "no label namespace",
        ),
        (
            "weft_requests_total{reason=~\"overload|over-load\"}",
            "reason never is over-load",
        ),
        ("label_values(weft_destinations, node)", "no label node"),
        ("vector(1)", "asks for nothing"),
    ] {
        let found = counted.missing(query);
        assert!(
            found.len() == 1 && found[0].contains(missing),
            "{query}: {found:?}"
        );
    }
    let honest =
        "sum by (workload, le) (rate(weft_request_duration_seconds_bucket{port=\"$p\"}[5m]))";
    assert_eq!(counted.missing(honest), [""; 0]);
    Ok(())
}

#[test]
fn every_alert_has_annotations_and_page_heading() -> Outcome {
    const PAGE: &str = "docs/monitoring.md";
    let (anchors, counted) = (page::anchors(&read(PAGE)?), counted()?);
    let mut named = BTreeSet::new();
    for rule in rules()?.into_iter().filter(sources::Rule::is_alert) {
        let annotation = |field: &str| {
            rule.whole["annotations"][field]
                .as_str()
                .unwrap_or_default()
        };
        for field in ["summary", "description", "action"] {
            assert!(annotation(field).len() > 20, "{}: no {field}", rule.name);
            let known = counted.answer(counted::query(&rule));
            for label in annotation(field).split("$labels.").skip(1) {
                let end = label.find(' ').unwrap_or(label.len());
                let label = &label[..end];
                assert!(known.contains(label), "{}: no label {label}", rule.name);
            }
        }
        let severity = rule.whole["labels"]["severity"]
            .as_str()
            .unwrap_or_default();
        let known = ["critical", "warning", "info"].contains(&severity);
        assert!(known, "{}: severity {severity:?}", rule.name);
        let (page, anchor) = annotation("runbook").split_once('#').unwrap_or_default();
        assert_eq!((page, anchor), (PAGE, rule.name.to_lowercase().as_str()));
        assert!(
            anchors.contains(anchor),
            "{PAGE} has no heading {}",
            rule.name
        );
        named.insert(anchor.to_owned());
    }
    // And no heading is left of an alert that went.
    let stale: Vec<_> = anchors
        .iter()
        .filter(|one| one.starts_with("weft"))
        .collect();
    assert_eq!(stale, named.iter().collect::<Vec<_>>());
    Ok(())
}

#[test]
fn monitoring_page_links_exist_and_records_are_listed() -> Outcome {
    let text = read("docs/monitoring.md")?;
    for (path, anchor) in page::links(&text) {
        let path = if path.is_empty() {
            "monitoring.md"
        } else {
            path
        };
        let target = sources::file("docs").join(path);
        assert!(target.exists(), "no {path}");
        if !anchor.is_empty() {
            let anchors = page::anchors(&std::fs::read_to_string(&target)?);
            assert!(anchors.contains(anchor), "{path} has no heading #{anchor}");
        }
    }
    for rule in rules()?.iter().filter(|rule| !rule.is_alert()) {
        assert!(text.contains(&format!("`{}`", rule.name)), "{}", rule.name);
    }
    assert!(read("README.md")?.contains("](docs/monitoring.md)"));
    Ok(())
}

/// What Grafana wants of a dashboard, and what a reader does.
#[test]
fn every_dashboard_is_complete_with_chosen_data_source() -> Outcome {
    let boards = dashboards()?;
    let names: Vec<&str> = boards.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = ["control-plane", "mesh", "namespace", "route", "workload"];
    assert_eq!(names, wanted);
    for (name, board) in &boards {
        assert_eq!(board["uid"], format!("weft-{name}"));
        assert_eq!(board["schemaVersion"], SCHEMA, "{name}");
        assert!(
            board["title"]
                .as_str()
                .is_some_and(|title| title.starts_with("Weft / "))
        );
        assert_eq!(
            board["templating"]["list"][0]["type"], "datasource",
            "{name}"
        );
        let all = board["panels"].as_array().context("no panels")?;
        let ids: BTreeSet<u64> = all.iter().filter_map(|one| one["id"].as_u64()).collect();
        assert_eq!(ids.len(), all.len(), "{name}: ids that are not unique");
        overlap(name, all)?;
        for panel in panels(board) {
            let title = panel["title"].as_str().unwrap_or_default();
            assert!(!title.is_empty(), "{name}: a panel without a title");
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{name}, {title}"
            );
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            assert!(unit.is_string(), "{name}, {title}: no unit");
            assert!(!queries(panel).is_empty(), "{name}, {title}: no query");
        }
    }
    Ok(())
}

fn overlap(name: &str, panels: &[Value]) -> anyhow::Result<()> {
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |field: &str| panel["gridPos"][field].as_u64().context("no place");
        let (x, y, w, h) = (at("x")?, at("y")?, at("w")?, at("h")?);
        assert!(
            w > 0 && h > 0 && x + w <= GRID,
            "{name}, {}",
            panel["title"]
        );
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
            assert!(
                taken.insert(cell),
                "{name}: {} covers another",
                panel["title"]
            );
        }
    }
    Ok(())
}
