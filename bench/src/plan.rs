//! What is measured, how often and for how long.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Differences of a paired run, unless the command line sets others.
const PAIRED_ROUNDS: usize = 20;

/// What kind of run is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunKind {
    Full,
    Quick,
    /// One round of one second each, to see that everything works.
    Smoke,
    /// The older proxy and the newer one in turns; see `paired`.
    Paired,
}

/// The command line.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) kind: RunKind,
    pub(crate) proxy: PathBuf,
    pub(crate) previous: Option<PathBuf>,
    /// Weft's program at the edge of the mesh.
    pub(crate) gateway: Option<PathBuf>,
    pub(crate) envoy: PathBuf,
    pub(crate) nginx: PathBuf,
    /// The archive of the proxy's image.
    pub(crate) image: Option<PathBuf>,
    /// Folder for the report.
    pub(crate) out: PathBuf,
    /// For the report: which programs took part.
    pub(crate) versions: String,
    /// Only these systems, separated by commas.
    pub(crate) only: Option<String>,
    /// Only steps whose name holds one of these, separated by commas.
    pub(crate) measures: Option<String>,
    /// How often a paired run measures.
    rounds: usize,
}

impl Arguments {
    /// # Errors
    /// An argument that is unknown or missing.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let (mut kind, mut rounds) = (RunKind::Quick, PAIRED_ROUNDS);
        let (mut proxy, mut previous, mut envoy, mut nginx) = (None, None, None, None);
        let (mut image, mut gateway) = (None, None);
        let (mut out, mut versions, mut only, mut measures) = (None, String::new(), None, None);
        for argument in arguments {
            match argument.split_once('=') {
                Some(("--proxy", path)) => proxy = Some(PathBuf::from(path)),
                Some(("--previous" | "--gateway", "")) => {}
                Some(("--previous", path)) => previous = Some(PathBuf::from(path)),
                Some(("--gateway", path)) => gateway = Some(PathBuf::from(path)),
                Some(("--envoy", path)) => envoy = Some(PathBuf::from(path)),
                Some(("--nginx", path)) => nginx = Some(PathBuf::from(path)),
                Some(("--image", path)) => image = Some(PathBuf::from(path)),
                Some(("--out", path)) => out = Some(PathBuf::from(path)),
                Some(("--versions", text)) => text.clone_into(&mut versions),
                Some(("--only", names)) => only = Some(names.to_owned()),
                Some(("--measures", names)) => measures = Some(names.to_owned()),
                Some(("--rounds", count)) => {
                    rounds = count.parse().with_context(|| argument.clone())?;
                }
                None if argument == "full" => kind = RunKind::Full,
                None if argument == "quick" => kind = RunKind::Quick,
                None if argument == "smoke" => kind = RunKind::Smoke,
                None if argument == "paired" => kind = RunKind::Paired,
                _ => bail!("{argument:?} is not understood"),
            }
        }
        Ok(Self {
            kind,
            proxy: proxy.context("--proxy= is missing")?,
            previous,
            gateway,
            envoy: envoy.context("--envoy= is missing")?,
            nginx: nginx.context("--nginx= is missing")?,
            image,
            out: out.context("--out= is missing")?,
            versions,
            only,
            measures,
            rounds,
        })
    }
}

/// How much is done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) full: bool,
    pub(crate) rounds: usize,
    /// One load at the highest rate.
    pub(crate) load: Duration,
    /// One load at a fixed rate.
    pub(crate) rate: Duration,
    /// One load of calls with bodies, or of downloads.
    pub(crate) bodies: Duration,
    /// No measurement begins after this.
    pub(crate) at_most: Duration,
    /// Idle after a burst of connections, before memory is read again.
    pub(crate) calm: Duration,
    /// Whether what stands at the edge of the mesh is measured.
    pub(crate) edge: bool,
    measures: Option<Vec<String>>,
}

impl Plan {
    pub(crate) fn of(arguments: &Arguments) -> Self {
        let second = Duration::from_secs;
        let measures = || {
            let names = arguments.measures.as_ref()?;
            Some(names.split(',').map(str::to_owned).collect())
        };
        // A fourth system beside direct, Envoy and Weft.
        let with_previous = |time: Duration| match arguments.previous {
            Some(_) => time * 4 / 3,
            None => time,
        };
        match arguments.kind {
            RunKind::Smoke => Self {
                full: false,
                rounds: 1,
                load: second(1),
                rate: second(1),
                bodies: second(1),
                at_most: second(120),
                calm: second(1),
                edge: true,
                measures: measures(),
            },
            RunKind::Paired => Self {
                full: false,
                rounds: arguments.rounds,
                load: second(1),
                rate: second(2),
                bodies: second(1),
                at_most: second(100 * 60),
                calm: second(0),
                edge: false,
                measures: measures(),
            },
            RunKind::Full => Self {
                full: true,
                rounds: 5,
                load: second(4),
                rate: second(8),
                bodies: second(2),
                at_most: with_previous(second(36 * 60)),
                calm: second(60),
                edge: true,
                measures: measures(),
            },
            RunKind::Quick => Self {
                full: false,
                rounds: 3,
                load: second(2),
                rate: second(3),
                bodies: second(1),
                at_most: with_previous(second(6 * 60)),
                calm: second(0),
                edge: false,
                measures: measures(),
            },
        }
    }

    /// Whether the command line selects this step.
    pub(crate) fn wants(&self, step: &str) -> bool {
        self.measures
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| step.contains(&**name)))
    }

    /// What is on the list of the bench and is not measured in such a run.
    pub(crate) fn never(&self) -> impl Iterator<Item = &'static str> {
        let quick = [
            "in the quick run: gRPC with empty messages, 10 KB by HTTP/1.1 at 1 and 128 connections, 4000 requests/s, eight TCP streams, new HTTP connections, memory after a burst and with many Services, scrapes, the edge of the mesh, decisions alone",
        ];
        let full = self.full;
        quick.into_iter().filter(move |_| !full)
    }
}
