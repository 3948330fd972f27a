//! One mesh for all tests: installed by the first that needs it, left running.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    sync::OnceLock,
    time::Duration,
};

use super::{Cluster, cluster::root, eventually, gateway_api, unready};

/// Namespace of the mesh's own parts.
pub const NAMESPACE: &str = "weft-system";

/// Installs or upgrades once per test program. Nothing restarts when neither the
/// chart nor an image changed, so programs can follow one another quickly.
///
/// `MESH=none` is the control run: nothing is installed, and the tests that claim
/// `as without a mesh` must pass all the same, or they test something else.
pub fn installed() -> anyhow::Result<()> {
    if std::env::var("MESH").is_ok_and(|mesh| mesh == "none") {
        return Ok(());
    }
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| install(&[]).map_err(|error| format!("{error:#}")));
    outcome
        .clone()
        .map_err(|error| anyhow::anyhow!("the mesh cannot be installed: {error}"))
}

/// `helm upgrade --install` with the local images and these further `--set`s. Gateways are served
/// in the namespaces of tests, where the cluster can have any; all else is as the chart has it.
pub fn install(more: &[&str]) -> anyhow::Result<()> {
    install_with(more, &[])
}

/// The same with further flags of helm.
pub fn install_with(more: &[&str], flags: &[&str]) -> anyhow::Result<()> {
    let cluster = Cluster::connect()?;
    let mut sets = vec![
        format!(
            "image.registry={}",
            std::env::var("WEFT_IMAGE_REGISTRY").unwrap_or_else(|_| "weft.local".into())
        ),
        // As e2e/images/build tags them.
        concat!("image.tag=", env!("CARGO_PKG_VERSION")).into(),
    ];
    // Images keep their tag while their content changes, so the pods' template
    // must change with the content, or old programs would be tested.
    for part in ["controller", "injector"] {
        sets.push(format!(
            "{part}.podAnnotations.content={}",
            content_of(part)
        ));
    }
    let gateways = gateway_api::settings(&cluster)?;
    let chart = chart();
    let mut args = vec![
        "upgrade",
        "--install",
        "weft",
        &chart,
        "-n",
        NAMESPACE,
        "--create-namespace",
    ];
    args.extend(["--wait", "--timeout", "4m"]);
    args.extend(flags);
    for set in &sets {
        args.extend(["--set-string", set.as_str()]);
    }
    for set in gateways
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
    {
        args.extend(["--set", set]);
    }
    // Another program may be upgrading at this moment; helm says so and gives up.
    let limit = Duration::from_secs(240);
    let settled = eventually(limit, "helm is free to upgrade", || {
        match cluster.helm(&args) {
            Err(error) if is_busy(&format!("{error:#}")) => Err(error),
            settled => Ok(settled),
        }
    })?;
    match settled {
        Ok(_) => Ok(()),
        Err(error) => Err(unready::explained(error, &cluster, NAMESPACE)),
    }
}

/// The folder of the chart.
pub fn chart() -> String {
    root().join("charts/weft").to_string_lossy().into_owned()
}

/// What helm says when another program installs at the same moment.
fn is_busy(error: &str) -> bool {
    ["another operation", "release: already exists"]
        .iter()
        .any(|message| error.contains(message))
}

/// Changes when the packed image does; `none` when it was packed elsewhere.
fn content_of(part: &str) -> String {
    let profile = std::env::var("PROFILE").unwrap_or_else(|_| "dev".into());
    match fs::read(root().join(format!("target/images/{profile}/{part}.digest"))) {
        Ok(digest) => {
            let mut hasher = DefaultHasher::new();
            digest.hash(&mut hasher);
            format!("x{:016x}", hasher.finish())
        }
        Err(_) => "none".into(),
    }
}
