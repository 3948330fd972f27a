//! The commands of docs/runbooks.md, as they stand there, with other names.
//!
//! Claims: trust-14

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::harness::{
    Cluster, Namespace, Outcome,
    authority::{self, install_rotatable},
    cluster::root,
    eventually, mesh, weft,
};

use super::{altered::Altered, rotation, url};

const PAGE: &str = "docs/runbooks.md";
/// Of one runbook, from its heading to the next.
const LINES: usize = 30;
const SETTLE: &str = "identity.rotation.settle=15s";
const SECRET: [&str; 3] = [
    SETTLE,
    "identity.issuer.source=secret",
    "identity.issuer.secretName=mesh-issuer",
];
/// As the page names the chart.
const CHART: &str = concat!("weft-", env!("CARGO_PKG_VERSION"), ".tgz");
const SERVED: Duration = Duration::from_secs(60);

/// The page, and a folder in which its commands run; it holds keys, and goes with the test.
struct Runbooks<'a> {
    cluster: &'a Cluster,
    page: String,
    folder: PathBuf,
}

impl<'a> Runbooks<'a> {
    fn open(cluster: &'a Cluster, claim: &str) -> anyhow::Result<Self> {
        let folder = format!("weft-{claim}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder)?;
        Ok(Self {
            cluster,
            page: fs::read_to_string(root().join(PAGE))?,
            folder,
        })
    }

    /// Runs what stands below a heading, with these names instead of the page's.
    fn run(&self, heading: &str, names: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut script = commands(&self.page, heading)?;
        for (name, ours) in names {
            ensure!(script.contains(name), "{heading} does not name {name}");
            script = script.replace(name, ours);
        }
        let program = weft::program()?;
        let programs = program.parent().context("weft lies in no folder")?;
        let path = programs.display();
        let script = format!("set -euxo pipefail\nexport PATH='{path}':$PATH\n{script}\n");
        let mut command = self.cluster.command("bash", &["-c", &script]);
        let output = command.current_dir(&self.folder).output()?;
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        println!("{heading}\n{shown}");
        ensure!(output.status.success(), "{heading}: {shown}");
        Ok(())
    }
}

impl Drop for Runbooks<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} stays: {error}", self.folder.display());
        }
    }
}

/// The indented lines below a heading, up to the next one.
fn commands(page: &str, heading: &str) -> anyhow::Result<String> {
    let mut lines = page.lines().skip_while(|line| *line != heading);
    lines
        .next()
        .with_context(|| format!("{PAGE} has no {heading}"))?;
    let below = lines.take_while(|line| !line.starts_with('#'));
    let commands: Vec<&str> = below.filter_map(|line| line.strip_prefix("    ")).collect();
    ensure!(!commands.is_empty(), "{heading} of {PAGE} has no command");
    Ok(commands.join("\n"))
}

fn are_short(page: &str) -> anyhow::Result<()> {
    for section in page.split("\n## ").skip(1) {
        let lines = section.trim_end().lines().count();
        let name = section.lines().next().unwrap_or_default();
        ensure!(lines <= LINES, "{name} of {PAGE} has {lines} lines");
    }
    Ok(())
}

fn revision(cluster: &Cluster) -> anyhow::Result<String> {
    let history = ["history", "weft", "-n", mesh::NAMESPACE, "-o", "json"];
    let revisions: serde_json::Value = serde_json::from_str(&cluster.helm(&history)?)?;
    let last = revisions.as_array().and_then(|all| all.last());
    Ok(last.context("no revision")?["revision"].to_string())
}

#[test]
fn runbooks_of_upgrade_rotation_and_backup_work() -> Outcome {
    let altered = Altered::begin()?;
    let ns = Namespace::meshed("runbook")?;
    ns.run(&["client", "server"])?;
    let (client, target) = (ns.pod("client")?, url("server", 8080, "/"));
    client.report(&target, &[])?;
    let cluster = &ns.cluster;
    let runbooks = Runbooks::open(cluster, "runbooks")?;
    are_short(&runbooks.page)?;
    let (chart, before) = (mesh::chart(), revision(cluster)?);
    let names = [
        (CHART, chart.as_str()),
        ("shop", ns.name.as_str()),
        ("REVISION", before.as_str()),
    ];
    runbooks.run("## Upgrade and back", &names)?;
    client.report(&target, &[])?;

    install_rotatable(cluster, &[SETTLE])?;
    let former = authority::root(cluster)?;
    runbooks.run("## Rotate the CA", &[("audit-2026", ns.name.as_str())])?;
    let root = authority::root(cluster)?;
    assert!(root != former, "{root} is the former one");

    runbooks.run("## Restore a backup", &[])?;
    runbooks.run("### Restore the Secret", &[])?;
    assert_eq!(authority::root(cluster)?, root, "another root signs");
    eventually(SERVED, "calls are served after it", || {
        client.report(&target, &[])
    })?;
    altered.restore()?;
    Ok(())
}

#[test]
fn runbook_of_leaked_key_works() -> Outcome {
    let altered = Altered::begin()?;
    let ns = Namespace::meshed("leaked")?;
    ns.run(&["web", "server"])?;
    let (web, target) = (ns.pod("web")?, url("server", 8080, "/"));
    web.report(&target, &[])?;
    let cluster = &ns.cluster;
    let former = authority::root(cluster)?;
    let (shop, incident) = (format!("-n {}", ns.name), format!("{}-", ns.name));
    let names = [
        ("-n shop", shop.as_str()),
        ("web-0", web.name.as_str()),
        ("incident-", incident.as_str()),
    ];
    let runbooks = Runbooks::open(cluster, "leaked")?;
    runbooks.run("## A key leaked", &names)?;
    let root = authority::root(cluster)?;
    assert!(root != former, "{root} is the former one");
    ns.ready(&["web"])?;
    let successor = ns.pod("web")?;
    assert!(successor.name != web.name, "the pod is there still");
    eventually(SERVED, "its successor is served", || {
        successor.report(&target, &[])
    })?;
    altered.nothing_to_restore();
    Ok(())
}

#[test]
fn runbook_of_own_issuer_works() -> Outcome {
    let altered = Altered::begin()?;
    let cluster = Cluster::connect()?;
    install_rotatable(&cluster, &[SETTLE])?;
    let former = authority::root(&cluster)?;
    let runbooks = Runbooks::open(&cluster, "issuer")?;
    rotation::issuer_in(&runbooks.folder, "runbook")?;
    let chart = mesh::chart();
    let names = [(CHART, chart.as_str())];
    runbooks.run("## Your own issuer", &names)?;
    let theirs = authority::root(&cluster)?;
    assert!(theirs != former, "{theirs} is the former one");
    // Ten minutes later, as the next rotation may begin.
    install_rotatable(&cluster, &SECRET)?;
    runbooks.run("### Back to a root that Weft makes", &names)?;
    let ours = authority::root(&cluster)?;
    assert!(ours != theirs, "{ours} is the issuer's");
    altered.restore()?;
    Ok(())
}
