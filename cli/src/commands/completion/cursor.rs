//! Finds which kind of name is completed at the end of an unfinished command line.
//!
//! Claims: observe-42

use clap::Command;

use crate::cluster::names::ResourceKind;
use crate::commands::tap::filters;
use crate::commands::{explain, identity, stat};
use crate::line::{Line, by_name};
use crate::traffic::select::ENDS;

/// What is named there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompletionKind {
    /// An object of one of these kinds, as `KIND/NAME`.
    Object(&'static [ResourceKind]),
    /// The name alone, of an object of this kind.
    Name(ResourceKind),
}

/// The end of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) wanted: CompletionKind,
    /// What stands there.
    pub(super) prefix: String,
    /// The namespace that the line has for this object alone.
    pub(super) namespace: Option<String>,
    /// Options of every command that the line has, such as `--context=test`.
    pub(super) options: Vec<String>,
}

/// What an argument of a command names.
pub(super) fn wanted(command: &str, argument: &str) -> Option<CompletionKind> {
    let kinds = match (command, argument) {
        (_, "namespace" | "weft_namespace" | "from_namespace" | "to_namespace") => {
            return Some(CompletionKind::Name(ResourceKind::Namespace));
        }
        ("proxy-config" | "log-level", "pod") => {
            return Some(CompletionKind::Name(ResourceKind::Pod));
        }
        ("release", "name") => {
            return Some(CompletionKind::Name(ResourceKind::CanaryRelease));
        }
        ("fault", "name") => {
            return Some(CompletionKind::Name(ResourceKind::FaultExperiment));
        }
        ("stat", "resource") => stat::KINDS,
        ("tap", "resource" | "to" | "from") => filters::ENDS,
        ("explain", "from") => explain::FROM,
        ("explain", "to") => explain::TO,
        ("identity", "resource") => identity::KINDS,
        ("edges" | "routes" | "top", "resource") | ("stat", "from" | "to") | ("suggest", "to") => {
            ENDS
        }
        _ => return None,
    };
    Some(CompletionKind::Object(kinds))
}

/// Reads the words behind the program's name; the last one is being typed.
pub(super) fn of(command: &Command, words: &[String]) -> Option<Cursor> {
    let (last, before) = words.split_last()?;
    let mut line = Line::new(command);
    // bash takes `--to=x` apart, into three words.
    for word in before.iter().filter(|word| *word != "=") {
        line.read(word);
    }
    end(&line, if last == "=" { "" } else { last.as_str() })
}

/// Where the cursor is, with what stands there.
fn end(line: &Line<'_>, last: &str) -> Option<Cursor> {
    let with_value = last
        .strip_prefix("--")
        .and_then(|long| long.split_once('='));
    let (argument, prefix) = match (line.open, with_value) {
        (Some(option), _) => (option, last),
        (None, Some((name, prefix))) => (by_name(line.command, name)?, prefix),
        (None, None) if last.starts_with('-') => return None,
        (None, None) => (line.command.get_positionals().nth(line.position)?, last),
    };
    let id = argument.get_id().as_str();
    let wanted = wanted(line.command.get_name(), id)?;
    let own = format!("{id}_namespace");
    let mut given = line.given.iter();
    let namespace = given.find(|(option, _)| option.get_id().as_str() == own);
    let mut options = Vec::new();
    for (option, value) in &line.given {
        let Some(long) = option.get_long().filter(|_| option.is_global_set()) else {
            continue;
        };
        options.push(match value {
            Some(value) => format!("--{long}={value}"),
            None => format!("--{long}"),
        });
    }
    Some(Cursor {
        wanted,
        prefix: prefix.to_owned(),
        namespace: namespace.and_then(|(_, value)| value.clone()),
        options,
    })
}

#[cfg(test)]
mod tests {
    use crds::observe::NodeKind;

    use super::*;
    use crate::args;

    fn cursor(line: &str) -> Option<Cursor> {
        let mut command = args::command();
        command.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        of(&command, &words)
    }

    #[test]
    fn names_are_wanted_where_a_command_takes_them() {
        let pod = CompletionKind::Name(ResourceKind::Pod);
        let namespace = CompletionKind::Name(ResourceKind::Namespace);
        let release = CompletionKind::Name(ResourceKind::CanaryRelease);
        for (line, wanted, prefix) in [
            ("stat dep", CompletionKind::Object(stat::KINDS), "dep"),
            (
                "stat deploy/",
                CompletionKind::Object(stat::KINDS),
                "deploy/",
            ),
            (
                "stat deploy --to svc/c",
                CompletionKind::Object(ENDS),
                "svc/c",
            ),
            (
                "tap deploy/web --to=svc/c",
                CompletionKind::Object(filters::ENDS),
                "svc/c",
            ),
            (
                "tap deploy/web --to = svc/c",
                CompletionKind::Object(filters::ENDS),
                "svc/c",
            ),
            (
                "tap deploy/web --to =",
                CompletionKind::Object(filters::ENDS),
                "",
            ),
            ("explain ", CompletionKind::Object(explain::FROM), ""),
            (
                "explain deploy/web s",
                CompletionKind::Object(explain::TO),
                "s",
            ),
            (
                "explain --tcp -n shop deploy/web s",
                CompletionKind::Object(explain::TO),
                "s",
            ),
            ("identity po", CompletionKind::Object(identity::KINDS), "po"),
            ("proxy-config we", pod, "we"),
            ("release status we", release, "we"),
            ("-Ao json log-level we", pod, "we"),
            ("stat deploy -n sh", namespace, "sh"),
            ("-n sh", namespace, "sh"),
            ("explain a b --from-namespace ", namespace, ""),
        ] {
            let found = cursor(line).unwrap_or_else(|| panic!("{line}: nothing is wanted"));
            assert_eq!(
                (found.wanted, found.prefix.as_str()),
                (wanted, prefix),
                "{line}"
            );
        }
    }

    /// Whether a node stands for pods, by the topmost owner that is known of them. A kind that
    /// is new has no arm here.
    fn is_of_pods(kind: NodeKind) -> bool {
        match kind {
            NodeKind::CronJob
            | NodeKind::DaemonSet
            | NodeKind::Deployment
            | NodeKind::Job
            | NodeKind::Pod
            | NodeKind::ReplicaSet
            | NodeKind::ReplicationController
            | NodeKind::Rollout
            | NodeKind::StatefulSet => true,
            NodeKind::Service
            | NodeKind::ServiceAccount
            | NodeKind::External
            | NodeKind::Outside
            | NodeKind::Unknown => false,
        }
    }

    // Claims: observe-47
    #[test]
    fn whatever_pods_are_counted_under_can_be_named() {
        let all = [
            NodeKind::CronJob,
            NodeKind::DaemonSet,
            NodeKind::Deployment,
            NodeKind::Job,
            NodeKind::Pod,
            NodeKind::ReplicaSet,
            NodeKind::ReplicationController,
            NodeKind::Rollout,
            NodeKind::StatefulSet,
            NodeKind::Service,
            NodeKind::ServiceAccount,
            NodeKind::External,
            NodeKind::Outside,
            NodeKind::Unknown,
        ];
        for (command, argument) in [
            ("edges", "resource"),
            ("explain", "from"),
            ("explain", "to"),
            ("identity", "resource"),
            ("routes", "resource"),
            ("stat", "resource"),
            ("stat", "from"),
            ("suggest", "to"),
            ("tap", "resource"),
            ("top", "resource"),
        ] {
            let Some(CompletionKind::Object(kinds)) = wanted(command, argument) else {
                panic!("{command} {argument}: no object is wanted");
            };
            for kind in all.into_iter().filter(|kind| is_of_pods(*kind)) {
                let named = ResourceKind::named(kind.as_str());
                assert!(
                    named.is_some_and(|named| kinds.contains(&named)),
                    "weft {command}: {argument} cannot name a {kind:?}"
                );
            }
        }
    }

    #[test]
    fn elsewhere_none_are() {
        for line in [
            "",
            "st",
            "stat deploy/web ",
            "stat --t",
            "stat -n",
            "stat deploy -t 1",
            "explain deploy/web svc/cart G",
            "log-level web-5d8 inf",
            "validate -f po",
            "dry-run --delete TrafficTarget/",
            "nothing deploy/",
        ] {
            assert_eq!(cursor(line), None, "{line}");
        }
    }

    #[test]
    fn completion_cursor_follows_namespace_and_context_of_line() {
        let found = cursor("--context test stat -nbank --as=eve deploy/w").unwrap();
        assert_eq!(
            found.options,
            ["--context=test", "--namespace=bank", "--as=eve"]
        );
        assert_eq!(found.namespace, None);
        let ends = "explain --from-namespace bank --to-namespace shop -A deploy/w";
        let from = cursor(ends).unwrap();
        assert_eq!(from.namespace.as_deref(), Some("bank"));
        assert_eq!(from.options, ["--all-namespaces"]);
        let to = cursor(&format!("{ends} svc/")).unwrap();
        assert_eq!(to.namespace.as_deref(), Some("shop"));
    }
}
