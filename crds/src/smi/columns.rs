//! The columns of `kubectl get`.

use serde_json::{Value, json};

/// One column of `kubectl get`.
#[derive(Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    path: &'static str,
    description: &'static str,
}

/// Where the message of the first condition that is False stands.
pub(crate) const FAILING_PATH: &str = r#".status.conditions[?(@.status=="False")].message"#;

pub(super) const SUMMARY_PATH: &str = ".status.summary";

pub(super) const fn column(
    name: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        path,
        description,
    }
}

pub(super) fn printer_columns(own: &[Column]) -> Vec<Value> {
    let json = |name: &str, path: &str, kind: &str, description: &str, priority: u8| {
        json!({
            "name": name,
            "type": kind,
            "jsonPath": path,
            "description": description,
            "priority": priority,
        })
    };
    let condition = |name: &str, of: &str, field: &str, description: &str, priority: u8| {
        let path = format!(r#".status.conditions[?(@.type=="{of}")].{field}"#);
        json(name, &path, "string", description, priority)
    };
    let state = |of: &str, description: &str| condition(of, of, "status", description, 0);
    own.iter()
        .map(|column| json(column.name, column.path, "string", column.description, 0))
        .chain([
            state("Accepted", "Whether it can be understood as it is written."),
            state(
                "ResolvedRefs",
                "Whether everything that it names exists and fits.",
            ),
            state("Programmed", "Whether the proxies that need it serve it."),
            // Only -o wide shows what has a priority above 0.
            json(
                "Message",
                FAILING_PATH,
                "string",
                "What is wrong, by the first condition that is False.",
                1,
            ),
            condition(
                "Proxies",
                "Programmed",
                "message",
                "How many proxies serve it.",
                1,
            ),
            json(
                "Age",
                ".metadata.creationTimestamp",
                "date",
                "Time since it was made.",
                0,
            ),
        ])
        .collect()
}
