//! A scrape as a table, and the part of docs/metrics.md that contains it. The controller's test
//! uses this file too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: String,
    help: String,
    /// Of its first sample.
    labels: Vec<String>,
}

/// Compares section `name` of docs/metrics.md with what `registry` shows, or
/// writes it when WEFT_WRITE_GENERATED is set. Every family needs a sample.
pub(crate) fn check(name: &str, registry: &Registry) {
    let mut scrape = String::new();
    encode(&mut scrape, registry).expect("metrics must encode");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let committed = std::fs::read_to_string(&page).expect("docs/metrics.md must be readable");
    let fresh = replaced(&committed, name, &table(&scrape));
    if std::env::var_os("WEFT_WRITE_GENERATED").is_some() {
        std::fs::write(&page, &fresh).expect("docs/metrics.md must be writable");
        return;
    }
    assert!(
        committed == fresh,
        "section {name} of docs/metrics.md is stale: run this test with WEFT_WRITE_GENERATED=1"
    );
}

/// `page` with what stands between the two marks of section `name` replaced.
fn replaced(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- generated: {name} -->\n"),
        format!("<!-- end: {name} -->"),
    );
    let (before, rest) = page
        .split_once(&begin)
        .expect("the page must have the section");
    let (_, after) = rest.split_once(&end).expect("the section must have an end");
    format!("{before}{begin}{table}{end}{after}")
}

fn table(scrape: &str) -> String {
    let families = families(scrape);
    let mut table =
        String::from("| name | type | labels | unit | what it counts |\n|---|---|---|---|---|\n");
    for (name, family) in &families {
        // Prometheus stores a counter's samples under this name.
        let shown = match family.kind.as_str() {
            "counter" => format!("{name}_total"),
            _ => name.clone(),
        };
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let Family {
            kind, unit, help, ..
        } = family;
        let labels = labels.join(" ");
        writeln!(table, "| `{shown}` | {kind} | {labels} | {unit} | {help} |")
            .expect("text must take text");
    }
    table
}

/// Families by name, from the text that a scraper reads.
fn families(scrape: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in scrape.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(text)) => {
                name.clone_into(&mut current);
                let family = families.entry(name.to_owned()).or_default();
                match what {
                    "TYPE" => text.clone_into(&mut family.kind),
                    "UNIT" => text.clone_into(&mut family.unit),
                    // The encoder ends every help with a full stop.
                    _ => text.trim_end_matches('.').clone_into(&mut family.help),
                }
            }
            _ => {
                let family = families.entry(current.clone()).or_default();
                if family.labels.is_empty() {
                    family.labels = labels(line);
                }
            }
        }
    }
    families
}

/// Names of a sample's labels; `le` belongs to the encoding of a histogram.
fn labels(sample: &str) -> Vec<String> {
    let Some((_, rest)) = sample.split_once('{') else {
        return Vec::new();
    };
    rest.split("=\"")
        .filter_map(|before| before.rsplit(['{', ',']).next())
        .filter(|name| !name.contains('"') && !name.is_empty() && *name != "le")
        .map(str::to_owned)
        .collect()
}
