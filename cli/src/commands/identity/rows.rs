//! Certificates for people, a row each, and for programs.

use std::time::SystemTime;

use serde::Serialize;

use super::certificate::Certificate;
use super::pods::PodName;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::table::{Cell, Table, Tone};
use crate::output::{self, Format, number};

/// One certificate, and its pod.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Of a pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) certificate: Certificate,
}

impl Row {
    pub(super) fn of(pod: PodName, certificate: Certificate) -> Self {
        let PodName { namespace, name } = pod;
        Self {
            namespace,
            name,
            certificate,
        }
    }

    /// What is no pod's.
    pub(super) fn named(name: &str, certificate: Certificate) -> Self {
        Self {
            namespace: String::new(),
            name: name.to_owned(),
            certificate,
        }
    }
}

/// Prints them at this time; `head` is the column of their names, and `all` means that they are of
/// many namespaces.
pub(super) fn print(
    rows: &[Row],
    head: &'static str,
    all: bool,
    now: SystemTime,
    format: Format,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if output::data(console, format, &rows)? {
        return Ok(());
    }
    let mut heads = Vec::new();
    if all {
        heads.push("NAMESPACE");
    }
    heads.extend([head, "IDENTITY", "SERIAL", "ISSUER", "ENDS", "RENEWAL"]);
    let mut table = Table::new(&heads);
    let until = |time: SystemTime| match time.duration_since(now) {
        Ok(left) => Cell::from(number::age(left)),
        Err(_) => Cell::toned("over", Tone::Bad),
    };
    for row in rows {
        let certificate = &row.certificate;
        let mut cells: Vec<Cell> = Vec::new();
        if all {
            cells.push(row.namespace.clone().into());
        }
        cells.extend([
            row.name.clone().into(),
            certificate.identity.clone().into(),
            certificate.serial.clone().into(),
            certificate.issuer.clone().into(),
            until(certificate.ends()),
            certificate.renewed().map(until).unwrap_or_default(),
        ]);
        table.row(cells);
    }
    table.write(console.out, console.color)?;
    Ok(())
}
