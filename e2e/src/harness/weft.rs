//! The command `weft`, as a user runs it: a process with a kubeconfig.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Cluster;

/// What a run of the command came to.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// Its exit status: 0 yes, 1 no, 2 bad usage, 3 it could not be found out.
    pub status: i32,
    /// Answers.
    pub out: String,
    /// Words about them.
    pub err: String,
    /// From its start to its end.
    pub took: Duration,
}

impl CommandOutput {
    /// The answer as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("weft gave no JSON: {self:?}"))
    }

    /// The same, if the command ended with this status.
    pub fn with_status(self, status: i32) -> anyhow::Result<Self> {
        ensure!(
            self.status == status,
            "weft ended with {}, not {status}:\n{}{}",
            self.status,
            self.out,
            self.err
        );
        Ok(self)
    }
}

impl Cluster {
    /// Runs `weft ARGS`. A refusal is a result, not an error.
    pub fn weft(&self, args: &[&str]) -> anyhow::Result<CommandOutput> {
        let program = program()?;
        let started = Instant::now();
        let output = self
            .command(&program.to_string_lossy(), args)
            .output()
            .with_context(|| format!("start {}", program.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(CommandOutput {
            status: output
                .status
                .code()
                .with_context(|| format!("weft {args:?} was killed"))?,
            out: text(&output.stdout),
            err: text(&output.stderr),
            took: started.elapsed(),
        })
    }
}

/// Where the command lies: `make images` builds it beside the programs of the images. Tests lie two folders
/// below, programs beside it.
pub fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut profiles = own.ancestors().skip(1);
    let target = profiles
        .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
        .and_then(|folder| folder.parent())
        .with_context(|| format!("{} lies in no target folder of cargo", own.display()))?;
    let profile = std::env::var("PROFILE").unwrap_or_else(|_| "dev".into());
    let folder = if profile == "dev" { "debug" } else { &profile };
    let program = target.join(folder).join("weft");
    ensure!(
        program.exists(),
        "{} does not exist: run `make images`",
        program.display()
    );
    Ok(program)
}
