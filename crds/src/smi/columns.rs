//! The columns of `kubectl get`.

use serde_json::{Value, json};

/// One column of `kubectl get`.
#[derive(Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    description: &'static str,
}

pub(super) const SUMMARY_PATH: &str = ".status.summary";

pub(super) const fn column(
    name: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        path,
        kind: "string",
        description,
    }
}

pub(super) fn printer_columns(own: &[Column]) -> Vec<Value> {
    let programmed = Column {
        name: "Programmed",
        path: r#".status.conditions[?(@.type=="Programmed")].status"#,
        kind: "string",
        description: "Whether the proxies that need it serve it.",
    };
    // Only -o wide shows what has a priority above 0.
    let message = Column {
        name: "Message",
        path: r#".status.conditions[?(@.type=="Programmed")].message"#,
        kind: "string",
        description: "How many proxies serve it.",
    };
    let accepted = Column {
        name: "Accepted",
        path: r#".status.conditions[?(@.type=="Accepted")].status"#,
        kind: "string",
        description: "Whether it can be understood as it is written.",
    };
    let resolved = Column {
        name: "ResolvedRefs",
        path: r#".status.conditions[?(@.type=="ResolvedRefs")].status"#,
        kind: "string",
        description: "Whether everything that it names exists and fits.",
    };
    let age = Column {
        name: "Age",
        path: ".metadata.creationTimestamp",
        kind: "date",
        description: "Time since it was made.",
    };
    let json = |column: &Column, priority: u8| {
        json!({
            "name": column.name,
            "type": column.kind,
            "jsonPath": column.path,
            "description": column.description,
            "priority": priority,
        })
    };
    own.iter()
        .map(|column| json(column, 0))
        .chain([
            json(&accepted, 0),
            json(&resolved, 0),
            json(&programmed, 0),
            json(&message, 1),
            json(&age, 0),
        ])
        .collect()
}
