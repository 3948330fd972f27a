//! kubectl and helm as functions whose errors show the command and its output.

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A way into the cluster. Cheap to make.
#[derive(Clone, Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    path: OsString,
}

impl Cluster {
    /// `KUBECONFIG`, else the local cluster of this checkout.
    pub fn connect() -> anyhow::Result<Self> {
        let root = root();
        let kubeconfig = match std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => root.join("target/cluster/kubeconfig"),
        };
        if !kubeconfig.exists() {
            bail!(
                "{} does not exist: run `make cluster`",
                kubeconfig.display()
            );
        }
        // The tools that fit the local cluster come before what is installed.
        let tools = root.join("target/tools/bin");
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&others)))?;
        Ok(Self { kubeconfig, path })
    }

    /// Where the kubeconfig lies; the local cluster's keys are beside it.
    pub fn folder(&self) -> Option<&Path> {
        self.kubeconfig.parent()
    }

    /// A command of `program` that talks to this cluster.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("env");
        // Through env, because Command looks a program up before it sets PATH.
        command
            .arg(program)
            .args(args)
            .env("PATH", &self.path)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null());
        command
    }

    /// Standard output of `kubectl ARGS`.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run("kubectl", args, None)
    }

    /// Standard output of `helm ARGS`.
    pub fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run("helm", args, None)
    }

    /// `kubectl apply` of YAML or JSON in `namespace`.
    pub fn apply(&self, namespace: &str, objects: &str) -> anyhow::Result<String> {
        self.apply_with(namespace, &[], objects)
    }

    /// The same with more arguments of `kubectl apply`.
    pub fn apply_with(
        &self,
        namespace: &str,
        more: &[&str],
        objects: &str,
    ) -> anyhow::Result<String> {
        let args = [&["apply", "-n", namespace, "-f", "-"], more].concat();
        self.run("kubectl", &args, Some(objects))
            .with_context(|| format!("apply in {namespace}:\n{objects}"))
    }

    /// One object or list as JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {args:?} gave no JSON"))
    }

    fn run(&self, program: &str, args: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let mut command = self.command(program, args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start {program}"))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        bail!(
            "{program} {}: {}\n{}{stdout}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    }
}

/// The checkout that this test was built from.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}
