//! The metrics that queries may use: those of docs/metrics.md, which tests of proxy and
//! controller compare with a scrape, and those that rules record.

use std::collections::{BTreeMap, BTreeSet};

use policy::reason::Reason;

use crate::promql::{self, Query};
use crate::sources::Rule;

/// Labels that scraping gives to every series, as docs/monitoring.md says.
const OF_TARGETS: [&str; 3] = ["namespace", "pod", "workload"];

type Words = BTreeSet<String>;

pub(crate) struct Counted {
    /// Labels by name of a sample.
    metrics: BTreeMap<String, Words>,
    /// Values that labels of closed sets may have.
    values: Words,
}

/// Words between single backquotes.
fn quoted(text: &str) -> Words {
    let words = text.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// What a rule asks for; nothing if it has no query.
pub(crate) fn query(rule: &Rule) -> &str {
    rule.whole["expr"].as_str().unwrap_or_default()
}

impl Counted {
    /// `page`: docs/metrics.md.
    pub(crate) fn new(page: &str, rules: &[Rule]) -> Self {
        let mut metrics = BTreeMap::new();
        for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
            let cells: Vec<&str> = row.split(" | ").collect();
            let (Some(name), Some(kind), Some(labels)) =
                (cells.first(), cells.get(1), cells.get(2))
            else {
                continue;
            };
            let name = name.trim_end_matches('`');
            let mut labels = quoted(labels);
            match *kind {
                "counter" | "gauge" => {
                    metrics.insert(name.to_owned(), labels);
                }
                "histogram" => {
                    metrics.insert(format!("{name}_sum"), labels.clone());
                    metrics.insert(format!("{name}_count"), labels.clone());
                    labels.insert("le".into());
                    metrics.insert(format!("{name}_bucket"), labels);
                }
                _ => {}
            }
        }
        for rule in rules.iter().filter(|rule| !rule.is_alert()) {
            let kept = promql::parsed(query(rule)).groupings.into_iter();
            let kept = kept.filter(|label| label != "le").collect();
            metrics.insert(rule.name.clone(), kept);
        }
        let mut values = quoted(page);
        values.extend(Reason::ALL.map(|reason| reason.as_str().to_owned()));
        Self { metrics, values }
    }

    pub(crate) fn len(&self) -> usize {
        self.metrics.len()
    }

    /// Labels that an answer to an alert's query has.
    pub(crate) fn answer(&self, query: &str) -> Words {
        let parsed = promql::parsed(query);
        let sums = ["sum(", "min(", "max(", "absent("];
        if !parsed.groupings.is_empty() || sums.iter().any(|sum| query.starts_with(sum)) {
            return parsed.groupings.into_iter().collect();
        }
        let metrics = parsed.selectors.iter().map(|one| one.metric.as_str());
        let mut labels: Words = metrics
            .clone()
            .filter_map(|metric| self.metrics.get(metric))
            .flatten()
            .cloned()
            .collect();
        if metrics.clone().all(|metric| !metric.contains(':')) {
            labels.extend(OF_TARGETS.map(str::to_owned));
        }
        labels
    }

    /// What of a query no series can answer, in words.
    pub(crate) fn missing(&self, query: &str) -> Vec<String> {
        let parsed = promql::parsed(query);
        if parsed.selectors.is_empty() {
            return vec![format!("{query} asks for nothing")];
        }
        let mut missing = Vec::new();
        for selector in &parsed.selectors {
            let Some(labels) = self.metrics.get(&selector.metric) else {
                missing.push(format!("nothing counts {}", selector.metric));
                continue;
            };
            // A recorded series has the labels of its grouping and no others.
            let recorded = selector.metric.contains(':');
            let has =
                |label: &str| labels.contains(label) || (!recorded && OF_TARGETS.contains(&label));
            for label in labels_of(&parsed, selector) {
                if !has(label) {
                    missing.push(format!("{} has no label {label}", selector.metric));
                }
            }
        }
        missing.extend(self.impossible(&parsed));
        missing
    }

    fn impossible(&self, query: &Query) -> Vec<String> {
        let matchers = query.selectors.iter().flat_map(|one| &one.matchers);
        matchers
            .flat_map(|matcher| matcher.value.split('|').map(move |value| (matcher, value)))
            .filter(|(_, value)| !value.is_empty() && !value.starts_with('$'))
            .filter(|(_, value)| !self.values.contains(*value))
            .map(|(matcher, value)| format!("{} never is {value}", matcher.label))
            .collect()
    }
}

/// Labels that a series of this selector needs: those it is matched by, and those that
/// results are grouped by, since no query here joins series that differ in them.
fn labels_of<'a>(
    query: &'a Query,
    selector: &'a promql::Selector,
) -> impl Iterator<Item = &'a str> {
    let matched = selector.matchers.iter().map(|matcher| &matcher.label);
    matched.chain(&query.groupings).map(String::as_str)
}
