//! What the chart holds for Prometheus and Grafana, read as they read it.
//! The ring `prometheus` uses this file too.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use e2e::harness::cluster::root;
use serde_json::Value;

/// A recording rule or an alert.
pub(crate) struct Rule {
    /// Its record or its alert.
    pub(crate) name: String,
    /// All of it, as the file has it.
    pub(crate) whole: Value,
}

impl Rule {
    pub(crate) fn is_alert(&self) -> bool {
        self.whole["alert"].is_string()
    }
}

/// A file of the checkout.
pub(crate) fn file(path: &str) -> PathBuf {
    root().join(path)
}

pub(crate) fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(file(path)).with_context(|| path.to_owned())
}

/// Every rule of the chart, group after group.
pub(crate) fn rules() -> anyhow::Result<Vec<Rule>> {
    let text = read("charts/weft/monitoring/rules.yaml")?;
    let all: Value = serde_yaml_ng::from_str(&text)?;
    let groups = all["groups"].as_array().context("no groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    rules
        .flatten()
        .map(|rule| {
            let text = |field: &str| rule[field].as_str().map(str::to_owned);
            Ok(Rule {
                name: text("record")
                    .or_else(|| text("alert"))
                    .context("a rule without a name")?,
                whole: rule.clone(),
            })
        })
        .collect()
}

/// Every dashboard by the name of its file without the ending.
pub(crate) fn dashboards() -> anyhow::Result<Vec<(String, Value)>> {
    let mut boards = Vec::new();
    for entry in fs::read_dir(file("charts/weft/monitoring/dashboards"))? {
        let path = entry?.path();
        let name = path.file_stem().context("a file without a name")?;
        let text = fs::read_to_string(&path)?;
        let board = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        boards.push((name.to_string_lossy().into_owned(), board));
    }
    boards.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(boards)
}

/// The panels of a dashboard that show something: all but the rows.
pub(crate) fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    let panels = board["panels"].as_array().into_iter().flatten();
    panels.filter(|panel| panel["type"] != "row")
}

/// The queries of a panel, with what Grafana puts in their place still in them.
pub(crate) fn queries(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    targets
        .map(|target| target["expr"].as_str().unwrap_or_default().to_owned())
        .collect()
}
