//! Completes names of objects by querying the API server.
//!
//! A failure gives no name and no message: a line about a missing right in the middle of the user's
//! own line would be of no use.
//!
//! Claims: observe-42

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};
use tokio::time::timeout;

use super::cursor::{CompletionKind, Cursor};
use crate::cluster::names::Named;
use crate::cluster::{Cluster, existing};
use crate::failure::Failure;
use crate::global::Global;

/// The most that a user waits for a name instead of typing it.
const WITHIN: Duration = Duration::from_secs(1);
/// The most names that are offered; more are no choice.
const MOST: usize = 500;

/// What could stand there, within a second.
pub(super) async fn found(cursor: &Cursor) -> Vec<String> {
    if let Some(kinds) = kinds(cursor) {
        return kinds;
    }
    let mut found = BTreeSet::new();
    let querying = async {
        let global = global(&cursor.options)?;
        let cluster = Cluster::connect_unattended(&global).await.ok()?;
        of(&cluster, cursor, &mut found).await.ok()
    };
    // What was found by then is of use without the rest.
    let _ = timeout(WITHIN, querying).await;
    found.into_iter().take(MOST).collect()
}

/// Kinds with this prefix, until a name follows.
fn kinds(cursor: &Cursor) -> Option<Vec<String>> {
    let CompletionKind::Object(kinds) = cursor.wanted else {
        return None;
    };
    if cursor.prefix.contains('/') {
        return None;
    }
    let named = kinds.iter().filter_map(|kind| {
        let mut names = kind.typed().iter();
        names.find(|name| name.starts_with(&cursor.prefix))
    });
    Some(named.map(|name| format!("{name}/")).collect())
}

/// Options of every command, as clap reads them.
fn global(options: &[String]) -> Option<Global> {
    let command = Global::augment_args(clap::Command::new("weft"));
    let words = std::iter::once("weft").chain(options.iter().map(String::as_str));
    let matches = command.try_get_matches_from(words).ok()?;
    let global = Global::from_arg_matches(&matches).ok()?;
    Some(Global {
        request_timeout: WITHIN,
        ..global
    })
}

/// Adds names of the cluster that begin so, page by page: the first ones of all may be others.
async fn of(
    cluster: &Cluster,
    cursor: &Cursor,
    found: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    let (typed, kind, prefix) = match cursor.wanted {
        CompletionKind::Name(kind) => (None, kind, cursor.prefix.as_str()),
        CompletionKind::Object(kinds) => {
            let parts = cursor.prefix.split_once('/');
            let (typed, prefix) = parts.unwrap_or((cursor.prefix.as_str(), ""));
            (Some(typed), Named::read(typed, kinds)?.kind, prefix)
        }
    };
    let namespace = cursor.namespace.as_deref().or(cluster.scope());
    let Some(path) = kind.path(namespace) else {
        return Ok(());
    };
    let mut next: Option<String> = None;
    loop {
        let (names, rest) = existing::page(cluster, &path, next.as_deref()).await?;
        let names = names.into_iter();
        let fitting = names.filter(|name| name.starts_with(prefix) && is_plain(name));
        found.extend(fitting.map(|name| match typed {
            Some(kind) => format!("{kind}/{name}"),
            None => name,
        }));
        next = rest;
        if next.is_none() || found.len() >= MOST {
            return Ok(());
        }
    }
}

/// Whether it is letters, digits, dashes and dots alone: a shell would act upon others.
fn is_plain(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use fake_api::FakeApi;
    use serde_json::json;

    use super::*;
    use crate::args::Cli;
    use crate::cluster::names::ResourceKind;
    use crate::commands::{stat, tap::filters};
    use crate::traffic::select::ENDS;

    fn cursor(wanted: CompletionKind, prefix: &str) -> Cursor {
        Cursor {
            wanted,
            prefix: prefix.to_owned(),
            namespace: None,
            options: Vec::new(),
        }
    }

    async fn of(cluster: &Cluster, cursor: &Cursor) -> Result<Vec<String>, Failure> {
        let mut found = BTreeSet::new();
        super::of(cluster, cursor, &mut found).await?;
        Ok(found.into_iter().collect())
    }

    fn cluster(api: &FakeApi, line: &[&str]) -> Cluster {
        let mut words = vec!["weft", "version"];
        words.extend(line);
        let cli = Cli::try_parse_from(words).unwrap();
        Cluster::of(api.client(), &cli.global)
    }

    fn api() -> FakeApi {
        let api = FakeApi::default();
        for (path, name) in [
            ("/apis/apps/v1/namespaces/shop/deployments", "web"),
            ("/apis/apps/v1/namespaces/shop/deployments", "web-admin"),
            ("/apis/apps/v1/namespaces/shop/deployments", "cart"),
            ("/apis/apps/v1/namespaces/bank/deployments", "webhook"),
            ("/api/v1/namespaces/shop/pods", "web-5d8"),
            ("/api/v1/namespaces", "shop"),
            ("/api/v1/namespaces", "bank"),
        ] {
            api.put(
                &format!("{path}/{name}"),
                json!({"metadata": {"name": name}}),
            );
        }
        let hostile = json!({"metadata": {"name": "web $(reboot)"}});
        api.put("/apis/apps/v1/namespaces/shop/deployments/hostile", hostile);
        api
    }

    #[tokio::test]
    async fn completion_finds_prefix_matches_in_users_namespace() {
        let api = api();
        let deploy = |prefix: &str| cursor(CompletionKind::Object(filters::ENDS), prefix);
        let shop = cluster(&api, &["-n", "shop"]);
        let found = of(&shop, &deploy("deploy/we")).await.unwrap();
        assert_eq!(
            found,
            ["deploy/web", "deploy/web-admin"],
            "and no hostile one"
        );
        let found = of(&shop, &deploy("Deployments/c")).await.unwrap();
        assert_eq!(found, ["Deployments/cart"], "as it was typed");
        let mut elsewhere = deploy("deploy/");
        elsewhere.namespace = Some("bank".to_owned());
        assert_eq!(of(&shop, &elsewhere).await.unwrap(), ["deploy/webhook"]);
        let everywhere = of(&cluster(&api, &["-A"]), &deploy("deploy/web")).await;
        assert_eq!(
            everywhere.unwrap(),
            ["deploy/web", "deploy/web-admin", "deploy/webhook"]
        );
        let pods = of(
            &shop,
            &cursor(CompletionKind::Name(ResourceKind::Pod), "web"),
        )
        .await;
        assert_eq!(pods.unwrap(), ["web-5d8"]);
        let namespaces = of(
            &shop,
            &cursor(CompletionKind::Name(ResourceKind::Namespace), ""),
        )
        .await;
        assert_eq!(namespaces.unwrap(), ["bank", "shop"]);
        // Of these there is no list, and that is no kind of this command.
        let outside = cursor(CompletionKind::Object(ENDS), "external/");
        assert_eq!(of(&shop, &outside).await.unwrap(), [""; 0]);
        assert!(of(&shop, &deploy("secrets/")).await.is_err());
    }

    #[tokio::test]
    async fn completion_finds_late_name_within_page_bound() {
        let api = api();
        for number in 0..=MOST {
            let name = format!("a-{number:03}");
            api.put(
                &format!("/api/v1/namespaces/shop/pods/{name}"),
                json!({"metadata": {"name": name}}),
            );
        }
        let shop = cluster(&api, &["-n", "shop"]);
        let pods = |prefix: &str| cursor(CompletionKind::Name(ResourceKind::Pod), prefix);
        assert_eq!(of(&shop, &pods("web")).await.unwrap(), ["web-5d8"]);
        assert_eq!(api.largest_list(), existing::PAGE);
        let all = of(&shop, &pods("")).await.unwrap();
        assert_eq!(all.len(), MOST, "the first page has as many as are offered");
    }

    #[tokio::test]
    async fn kinds_are_known_without_a_cluster() {
        let found = found(&cursor(CompletionKind::Object(stat::KINDS), "s")).await;
        assert_eq!(found, ["sts/", "svc/"]);
        let long = kinds(&cursor(CompletionKind::Object(stat::KINDS), "deployment"));
        assert_eq!(long.unwrap(), ["deployment/"]);
        assert_eq!(
            kinds(&cursor(CompletionKind::Name(ResourceKind::Pod), "")),
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_silent_is_given_a_second() {
        let api = api();
        api.vanish(true);
        let patient = global(&["--request-timeout=30s".to_owned()]).unwrap();
        let cluster = Cluster::of(api.client(), &patient);
        let started = tokio::time::Instant::now();
        let found = of(
            &cluster,
            &cursor(CompletionKind::Name(ResourceKind::Pod), ""),
        )
        .await;
        assert!(found.is_err(), "{found:?}");
        assert_eq!(started.elapsed().as_secs(), 1);
        assert!(global(&["--never-heard-of".to_owned()]).is_none());
    }
}
