//! Writes bench/RESILIENCE.md and its pictures.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::points::{BoundResult, Row, Section};
use crate::{curves, provenance};

const PAGE: &str = "RESILIENCE.md";

/// What the figures depend on.
const SOURCES: &[&str] = &[
    "proxy",
    "policy",
    "wire",
    "identity",
    "runtime",
    "bench/src",
    "Cargo.toml",
];

/// How the run was made, and what came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) sections: &'a [Section],
    pub(super) versions: &'a str,
    /// Of the last minute before the run: others' work that disturbs.
    pub(super) load_before: &'a str,
    pub(super) minutes: u64,
    pub(super) short: bool,
    /// Some points were left out.
    pub(super) partial: bool,
}

const METHOD: &str = "How: each pod is a network namespace with an application of the bench's own and a proxy beside it, behind the redirection that `weft-proxy capture` writes; a router joins them and can lose one. Every mesh gets the same calls from the same generator at the same times: an open loop, so that a call begins when it is due, whatever became of those before, and waiting counts. Both meshes do mutual TLS 1.3. Weft is the release binary with what its controller would send; where nothing else is said, that is no TrafficPolicy at all. Envoy stands as a sidecar with what Istio makes of a Service without any settings: two retries on `connect-failure`, `refused-stream`, `unavailable` and `cancelled`, 10 s to connect, least-request balancing, no outlier detection, no limits, no timeouts. Until 1.23 Istio tried 503 again as well, POST included; where the third column says so, that is what it shows. Client, proxies and servers share the machine's cores.
";

pub(super) fn text(run: &Run<'_>) -> String {
    let mut text = "# What callers see when something fails\n\n".to_owned();
    if run.short {
        text.push_str("**A short run, to see that everything works: these are no results.**\n\n");
    } else if run.partial {
        text.push_str("**Some points or systems only.**\n\n");
    }
    let _ = writeln!(
        text,
        "Written by `make bench-resilience`, {}, in {} min. Commit {}. Machine: {}; load average before the run {}. {}\n",
        time::OffsetDateTime::now_utc().date(),
        run.minutes,
        provenance::commit(SOURCES),
        provenance::machine(),
        run.load_before,
        run.versions
    );
    text.push_str(&short_of(run.sections));
    text.push_str(METHOD);
    for section in run.sections {
        text.push_str(&table(section));
    }
    text
}

/// Where Weft does not do what it should, one line each.
pub(super) fn shortfalls(sections: &[Section]) -> Vec<String> {
    let rows = sections
        .iter()
        .flat_map(|section| section.rows.iter().map(move |row| (section.title, row)));
    let missed = rows.filter_map(|(title, row)| {
        let why = match row.bound_result {
            BoundResult::Missed => "missed",
            BoundResult::NotInForce => "not in force yet",
            BoundResult::Met | BoundResult::None => return None,
        };
        let found = row.results[0].as_deref().unwrap_or("-");
        let (what, bound) = (&row.what, row.bound);
        Some(format!(
            "{title}: {what}: {found}, and must be {bound} ({why})."
        ))
    });
    missed.collect()
}

/// The same, first of all on the page.
fn short_of(sections: &[Section]) -> String {
    let mut text = "## Where Weft falls short\n\n".to_owned();
    let missed = shortfalls(sections);
    for one in &missed {
        let _ = writeln!(text, "- {one}");
    }
    if missed.is_empty() {
        text.push_str("Every bound below is met.\n");
    }
    text.push_str("\n## Method\n\n");
    text
}

fn table(section: &Section) -> String {
    let Section {
        title, how, third, ..
    } = section;
    let mut text = format!("\n## {title}\n\n{how}\n\n");
    if let Some(picture) = &section.picture {
        let _ = writeln!(text, "![{}]({})\n", picture.title, picture.file);
    }
    let _ = writeln!(
        text,
        "| | must | Weft | Envoy, Istio's defaults | {third} | |\n|---|---|---|---|---|---|"
    );
    for row in &section.rows {
        text.push_str(&line(row));
    }
    text
}

fn line(row: &Row) -> String {
    let [weft, envoy, third] = row
        .results
        .each_ref()
        .map(|one| one.as_deref().unwrap_or("-"));
    let result = match row.bound_result {
        BoundResult::Met => "met",
        BoundResult::Missed => "**missed**",
        BoundResult::NotInForce => "not in force",
        BoundResult::None => "",
    };
    format!(
        "| {} | {} | {weft} | {envoy} | {third} | {result} |\n",
        row.what, row.bound
    )
}

pub(super) fn write(folder: &Path, text: &str, sections: &[Section]) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(PAGE), text)?;
    for picture in sections
        .iter()
        .filter_map(|section| section.picture.as_ref())
    {
        let svg = curves::svg(picture.title, picture.unit, &picture.sizes, &picture.panels);
        fs::write(folder.join(picture.file), svg)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BoundResult, Row, Run, Section, text};

    fn section(bound_result: BoundResult) -> Section {
        Section {
            title: "Overload",
            how: "How.".to_owned(),
            third: "Envoy with more",
            rows: vec![Row {
                what: "good calls".to_owned(),
                bound: "≥ 90 %",
                results: [Some("12 %".to_owned()), Some("3 %".to_owned()), None],
                bound_result,
            }],
            picture: None,
        }
    }

    fn page(sections: &[Section]) -> String {
        text(&Run {
            sections,
            versions: "Envoy 1.40.0.",
            load_before: "0.1",
            minutes: 20,
            short: false,
            partial: false,
        })
    }

    #[test]
    fn missed_bound_appears_on_top_and_in_table() {
        let page = page(&[section(BoundResult::Missed)]);
        let (top, rest) = page.split_once("## Method").unwrap();
        assert!(
            top.contains("- Overload: good calls: 12 %, and must be ≥ 90 % (missed)."),
            "{top}"
        );
        assert!(
            rest.contains("| good calls | ≥ 90 % | 12 % | 3 % | - | **missed** |"),
            "{rest}"
        );
    }

    #[test]
    fn inactive_bound_is_shown_and_never_met() {
        let page = page(&[section(BoundResult::NotInForce)]);
        assert!(page.contains("(not in force yet)"), "{page}");
        assert!(!page.contains("met |") && !page.contains("Every bound below is met"));
        assert!(
            super::text(&Run {
                sections: &[section(BoundResult::Met)],
                versions: "",
                load_before: "",
                minutes: 1,
                short: true,
                partial: false,
            })
            .contains("these are no results")
        );
    }
}
