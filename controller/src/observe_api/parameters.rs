//! Validates which parameters each resource of `observe.weft.dev` allows. A misspelt one is
//! refused: if it were ignored, the response would be that of another query.
//!
//! Claims: observe-17, observe-45

use crds::observe::Resource;

use crate::aggregated::parameters::{refuse_repeated, refuse_unknown};
use crate::aggregated::refusal::Refusal;

/// Length of a query; the API server bounds it further.
const MAX_QUERY: usize = 8192;

/// The resource's own ones.
fn own(resource: Resource) -> &'static [&'static str] {
    match resource {
        Resource::Graphs => &[
            "gone", "history", "quiet", "routes", "settled", "since", "watch", "window",
        ],
        Resource::Proxies => &[
            "config",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
        ],
        Resource::Taps => &[
            "from", "header", "maxRps", "method", "of", "path", "route", "slower", "status", "to",
            "watch",
        ],
        Resource::RouteTables => &["from", "kind"],
        Resource::Scopes | Resource::Explanations | Resource::DryRuns => &[],
    }
}

/// Those of which there may be several.
fn lists(resource: Resource) -> &'static [&'static str] {
    match resource {
        Resource::Taps => &["from", "header", "to"],
        Resource::Graphs
        | Resource::Proxies
        | Resource::RouteTables
        | Resource::Scopes
        | Resource::Explanations
        | Resource::DryRuns => &[],
    }
}

/// Checks the names of all parameters; values are read where they are used.
///
/// # Errors
/// When one is neither the resource's own nor what clients add by themselves, or is there twice;
/// when all of them are longer than any client needs; and when what is no stream is to be watched:
/// a client that gets a list instead cannot read it.
pub(super) fn check(resource: Resource, query: &str) -> Result<(), Refusal> {
    let (plural, own) = (resource.plural(), own(resource));
    if query.len() > MAX_QUERY {
        let why = format!("the query is longer than {MAX_QUERY} bytes");
        return Err(Refusal::bad(why));
    }
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name == "watch" && !own.contains(&"watch") && !matches!(&*value, "0" | "false") {
            return Err(Refusal::not_allowed(format!(
                "{plural} cannot be watched: ask again instead, without parameter watch; what \
                 streams is graphs/live and taps/live"
            )));
        }
    }
    refuse_unknown(plural, query, own)?;
    refuse_repeated(query, lists(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_parameter_is_refused_with_the_nearest_name() {
        for (resource, query, name, meant) in [
            (Resource::Graphs, "windw=5m", "windw", "window"),
            (
                Resource::Graphs,
                "window=5m&histroy=5m",
                "histroy",
                "history",
            ),
            (Resource::Taps, "watch=1&maxRPS=7", "maxRPS", "maxRps"),
            (Resource::Proxies, "limits=7", "limits", "limit"),
        ] {
            let refusal = check(resource, query).unwrap_err();
            assert_eq!(refusal.code, 400, "{query}");
            let (first, last) = (
                format!("parameter {name}: "),
                format!("you may mean {meant}"),
            );
            let message = refusal.message;
            assert!(
                message.starts_with(&first) && message.ends_with(&last),
                "{message}"
            );
        }
        let refusal = check(Resource::Scopes, "colour=%1Bblue&all=1").unwrap_err();
        assert_eq!(
            refusal.message,
            "parameter colour: unknown to scopes, which have none"
        );
        let long = format!("{}=1", "%1B".repeat(100));
        let refusal = check(Resource::Graphs, &long).unwrap_err();
        assert!(!refusal.message.contains('\u{1b}'), "{}", refusal.message);
        assert!(refusal.message.len() < 1000, "{}", refusal.message);
    }

    #[test]
    fn query_length_is_limited_for_every_resource() {
        for resource in Resource::ALL {
            let of = |length: usize| format!("labelSelector={}", "x".repeat(length));
            let refusal = check(resource, &of(MAX_QUERY)).unwrap_err();
            assert_eq!(refusal.code, 400, "{resource:?}");
            assert!(refusal.message.contains("8192"), "{}", refusal.message);
            assert!(check(resource, &of(MAX_QUERY / 2)).is_ok(), "{resource:?}");
        }
    }

    #[test]
    fn what_clients_add_by_themselves_is_taken() {
        let query = "limit=500&continue=a%2Fb&resourceVersion=0&resourceVersionMatch=NotOlderThan&\
                     timeoutSeconds=30&timeout=32s&pretty=true&labelSelector=&fieldSelector=&\
                     watch=false&allowWatchBookmarks=true&sendInitialEvents=true&\
                     includeObject=Object&fieldManager=kubectl-create&dryRun=All&\
                     fieldValidation=Strict";
        for resource in Resource::ALL {
            assert!(check(resource, query).is_ok(), "{resource:?}");
        }
    }

    #[test]
    fn duplicate_parameter_is_refused_unless_it_is_list() {
        for (resource, query, name) in [
            (Resource::Graphs, "window=60s&window=10s", "window"),
            (Resource::Proxies, "limit=5&limit=6", "limit"),
            (Resource::Taps, "watch=1&maxRps=7&maxRps=8", "maxRps"),
            (Resource::Taps, "of=Pod/a&of=Pod/b", "of"),
        ] {
            let refusal = check(resource, query).unwrap_err();
            let first = format!("parameter {name}: is given twice");
            assert!(refusal.message.starts_with(&first), "{}", refusal.message);
        }
        let several = "watch=1&of=Pod/a&to=Pod/b&to=Pod/c&from=Pod/d&from=Pod/e&header=a&header=b";
        assert!(check(Resource::Taps, several).is_ok());
    }

    #[test]
    fn what_is_no_stream_is_not_watched() {
        for resource in Resource::ALL {
            for query in ["watch=1", "allowWatchBookmarks=true&watch=true", "watch="] {
                let streams = matches!(resource, Resource::Graphs | Resource::Taps);
                let checked = check(resource, query);
                assert_eq!(checked.is_ok(), streams, "{resource:?} {query}");
                if let Err(refusal) = checked {
                    let refused = (refusal.code.as_u16(), refusal.reason);
                    assert_eq!(refused, (405, "MethodNotAllowed"));
                    assert!(refusal.message.contains("ask again"), "{}", refusal.message);
                }
            }
        }
    }
}
