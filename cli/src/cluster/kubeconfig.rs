//! Finds the cluster, the user and the namespace: from the kubeconfig files that kubectl reads, in
//! a pod from its service account.
//!
//! A kubeconfig may hold secrets, so no message quotes from it.
//!
//! Claims: observe-64

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::nearest::{hint, nearest};
use crate::failure::Failure;
use crate::global::{Global, namespace};

/// The file that is read where none is named, as people write it.
const HOME: &str = "~/.kube/config";
/// Where a context that names no namespace is.
const DEFAULT: &str = "default";

/// Why a file is of no use.
struct Unusable {
    file: String,
    error: KubeconfigError,
}

impl Unusable {
    fn of(path: &Path, error: KubeconfigError) -> Self {
        let file = path.display().to_string();
        Self { file, error }
    }

    fn is_missing(&self) -> bool {
        matches!(&self.error, KubeconfigError::ReadConfig(source, _) if source.kind() == ErrorKind::NotFound)
    }

    fn into_failure(self) -> Failure {
        let Self { file, error } = self;
        Failure::usage(match error {
            // The parser's own message shows the lines around the place.
            KubeconfigError::Parse(parse) => {
                let at = parse.location();
                let at =
                    at.map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
                format!(
                    "kubeconfig: {file}{at}: this is no kubeconfig in YAML; its text may be secret \
                     and is not shown here"
                )
            }
            // It names the file.
            error @ KubeconfigError::ReadConfig(..) => format!("kubeconfig: {error}"),
            error => format!("kubeconfig: {file}: {error}"),
        })
    }
}

/// How the cluster that is meant is reached.
///
/// # Errors
/// When there is no usable kubeconfig. No request is sent.
pub(super) async fn config(global: &Global) -> Result<Config, Failure> {
    let read = match &global.kubeconfig {
        Some(path) => of_file(path).map(Some),
        None => match kubeconfigs() {
            paths if paths.is_empty() => of_home(),
            paths => merged(&paths).map(Some),
        },
    };
    match read.map_err(Unusable::into_failure)? {
        Some(kubeconfig) => of(kubeconfig, global).await,
        // No file was named, and a pod of the cluster has its service account.
        None if global.context.is_none() => Config::incluster().map_err(|_| {
            Failure::unknown(
                "there is no kubeconfig: set KUBECONFIG or say --kubeconfig, or give this pod a \
                 service account",
            )
        }),
        None => Err(Failure::usage(
            "kubeconfig: there is none that could have this context; set KUBECONFIG or say \
             --kubeconfig",
        )),
    }
}

/// The files that `KUBECONFIG` names.
fn kubeconfigs() -> Vec<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a convention of Kubernetes, and no setting of ours"
    )]
    let list = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let paths = std::env::split_paths(&list);
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The context that is named, or else the current one.
async fn of(kubeconfig: Kubeconfig, global: &Global) -> Result<Config, Failure> {
    // Where none is current, kubectl leaves an empty text.
    let current = kubeconfig.current_context.as_deref();
    let current = current.filter(|context| !context.is_empty());
    let Some(context) = global.context.as_deref().or(current) else {
        return Err(Failure::usage(
            "kubeconfig: no context is current; say --context NAME, or choose one with `kubectl \
             config use-context NAME`",
        ));
    };
    has(&kubeconfig, context)?;
    let options = KubeConfigOptions {
        context: Some(context.to_owned()),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| Failure::usage(format!("kubeconfig: {error}")))?;
    if config.default_namespace.is_empty() {
        DEFAULT.clone_into(&mut config.default_namespace);
    }
    let here = &config.default_namespace;
    match namespace(here) {
        Err(why) if global.namespace.is_none() => Err(Failure::usage(format!(
            "kubeconfig: namespace {here:?} of the context: {why}; say another with -n"
        ))),
        _ => Ok(config),
    }
}

/// # Errors
/// When it has no context of this name.
fn has(kubeconfig: &Kubeconfig, context: &str) -> Result<(), Failure> {
    let mut known = kubeconfig.contexts.iter().map(|known| &*known.name);
    if known.any(|known| known == context) {
        return Ok(());
    }
    let known = kubeconfig.contexts.iter().map(|known| &*known.name);
    let hint = hint(nearest(context, known));
    Err(Failure::usage(format!(
        "kubeconfig: there is no context {context:?}{hint}"
    )))
}

fn of_file(path: &Path) -> Result<Kubeconfig, Unusable> {
    let read = Kubeconfig::read_from(path);
    let mut read = read.map_err(|error| Unusable::of(path, error))?;
    // An empty text is no context, and hides none of the files behind.
    let current = read.current_context.take();
    read.current_context = current.filter(|context| !context.is_empty());
    Ok(read)
}

/// Those files as one, as kubectl reads them: a missing one is passed over, unless all are.
fn merged(paths: &[PathBuf]) -> Result<Kubeconfig, Unusable> {
    let mut merged: Option<Kubeconfig> = None;
    let mut missing = None;
    for path in paths {
        match of_file(path) {
            Ok(read) => {
                let both = merged.unwrap_or_default().merge(read);
                merged = Some(both.map_err(|error| Unusable::of(path, error))?);
            }
            Err(why) if why.is_missing() => missing = Some(why),
            Err(why) => return Err(why),
        }
    }
    let none = || Unusable::of(Path::new(HOME), KubeconfigError::FindPath);
    merged.ok_or_else(|| missing.unwrap_or_else(none))
}

/// The one that is read without a word; nothing where there is none.
fn of_home() -> Result<Option<Kubeconfig>, Unusable> {
    let read = Kubeconfig::read().map_err(|error| Unusable::of(Path::new(HOME), error));
    match read {
        Err(why) if why.is_missing() || matches!(why.error, KubeconfigError::FindPath) => Ok(None),
        read => read.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::args::Cli;

    /// What a file of this text means, with these options; its name is `broken-config`.
    async fn read(text: &str, options: &[&str]) -> Result<Config, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("broken-config");
        std::fs::write(&file, text).unwrap();
        let words = ["weft", "version", "--kubeconfig", file.to_str().unwrap()];
        let global = Cli::try_parse_from(words.iter().chain(options));
        config(&global.unwrap().global).await
    }

    /// With this for the context `test`, and this current one.
    fn text(context: &Value, current: &Value) -> String {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": current,
            "clusters": [{"name": "test", "cluster": {"server": "https://localhost:1"}}],
            "contexts": [{"name": "test", "context": context}],
        });
        text.to_string()
    }

    fn context(namespace: &str) -> Value {
        json!({"cluster": "test", "user": "", "namespace": namespace})
    }

    #[tokio::test]
    async fn invalid_kubeconfig_is_named_without_showing_its_content() {
        for bad in [
            "hunter2\n",
            "users:\n- name: a\n  user:\n    token: hunter2\n   client: [\n",
            "clusters: [\nusers: hunter2\n",
            "users:\n- name: a\n  user: hunter2\n",
        ] {
            let Err(Failure::Usage(words)) = read(bad, &[]).await else {
                panic!("{bad}");
            };
            assert!(words.contains("/broken-config"), "{words}");
            assert!(words.contains("no kubeconfig in YAML"), "{words}");
            assert!(!words.contains("hunter2"), "{words}");
        }
        let good = text(&context("shop"), &json!("test"));
        assert!(read(&good, &[]).await.is_ok());
    }

    #[tokio::test]
    async fn namespace_of_a_context_is_one_or_the_default() {
        for (typed, meant) in [("shop", "shop"), ("", "default")] {
            let config = read(&text(&context(typed), &json!("test")), &[]).await;
            assert_eq!(config.unwrap().default_namespace, meant, "{typed}");
        }
        let bad = text(&context("../x"), &json!("test"));
        let Err(Failure::Usage(words)) = read(&bad, &[]).await else {
            panic!("it is asked about");
        };
        assert!(
            words.contains("namespace \"../x\" of the context"),
            "{words}"
        );
        assert!(read(&bad, &["-n", "shop"]).await.is_ok());
    }

    #[tokio::test]
    async fn missing_context_error_suggests_way_out() {
        for (current, way) in [
            (json!(""), "say --context NAME"),
            (json!(null), "say --context NAME"),
            (json!("tset"), "you may mean test"),
        ] {
            let text = text(&context("shop"), &current);
            let Err(Failure::Usage(words)) = read(&text, &[]).await else {
                panic!("{current}");
            };
            assert!(words.contains(way), "{words}");
            assert!(read(&text, &["--context", "test"]).await.is_ok());
        }
        let Err(Failure::Usage(words)) = read("", &[]).await else {
            panic!("an empty file");
        };
        assert!(words.contains("no context is current"), "{words}");
    }

    #[test]
    fn context_of_later_file_applies_without_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        std::fs::write(&other, text(&context("shop"), &json!("test"))).unwrap();
        for (first, expected) in [("", "test"), ("mine", "mine")] {
            std::fs::write(&one, text(&context("shop"), &json!(first))).unwrap();
            let Ok(both) = merged(&[one.clone(), other.clone()]) else {
                panic!("{first:?}");
            };
            assert_eq!(both.current_context.as_deref(), Some(expected));
        }
    }
}
