//! Checks of query parameters that all aggregated APIs share.
//!
//! Claims: observe-45

use std::collections::BTreeSet;

use crds::near;

use super::refusal::Refusal;

/// Characters of a name that are quoted.
const MAX_QUOTED: usize = 64;

/// What kubectl, client-go, Argo CD and the API server add by themselves to a request. It means
/// nothing here, where the resource does not define it itself.
const OF_CLIENTS: [&str; 16] = [
    "allowWatchBookmarks",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "includeObject",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeout",
    "timeoutSeconds",
    "watch",
];

/// Looks whether every parameter is among the `own` ones of the request, or is one that clients add
/// by themselves: another one would be ignored.
///
/// # Errors
/// When one is not.
pub(crate) fn refuse_unknown(of: &str, query: &str, own: &[&str]) -> Result<(), Refusal> {
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        if own.contains(&&*name) || OF_CLIENTS.contains(&&*name) {
            continue;
        }
        let known = match own {
            [] => "which have none".to_owned(),
            own => format!("which have {}", own.join(", ")),
        };
        let hint = near::hint(&name, own.iter().copied());
        let name = quoted(&name);
        return Err(Refusal::bad(format!(
            "parameter {name}: unknown to {of}, {known}{hint}"
        )));
    }
    Ok(())
}

/// Looks whether a parameter is given twice: one of the two would be ignored, and its sender would
/// get the answer to another query. Those of `lists` may.
///
/// # Errors
/// When one does.
pub(crate) fn refuse_repeated(query: &str, lists: &[&str]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        if lists.contains(&&*name) {
            continue;
        }
        if seen.contains(&name) {
            let name = quoted(&name);
            return Err(Refusal::bad(format!(
                "parameter {name}: is given twice, and one value counts; give it once"
            )));
        }
        seen.insert(name);
    }
    Ok(())
}

/// The beginning of a name, without what a terminal acts upon.
pub(crate) fn quoted(name: &str) -> String {
    let name: String = name.chars().take(MAX_QUOTED).collect();
    name.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_parameter_is_refused_whatever_its_value() {
        for (query, name) in [
            ("window=60s&window=10s", "window"),
            ("a=1&window=60s&window=60s", "window"),
            ("window&window", "window"),
            ("wind%6fw=60s&window=10s", "window"),
            ("%1B[2J=1&%1B%5B2J=2", "\\u{1b}[2J"),
        ] {
            let refusal = refuse_repeated(query, &["to"]).unwrap_err();
            assert_eq!(refusal.code, 400, "{query}");
            let first = format!("parameter {name}: is given twice");
            assert!(refusal.message.starts_with(&first), "{}", refusal.message);
        }
        let long = "x".repeat(2_000);
        let refusal = refuse_repeated(&format!("{long}=1&{long}=2"), &[]).unwrap_err();
        assert!(refusal.message.len() < 200, "{}", refusal.message);
    }

    #[test]
    fn list_parameters_may_repeat_and_distinct_names_pass() {
        for query in [
            "",
            "to=a&to=b&window=60s",
            "window=60s&Window=10s",
            "a=1&b=1",
        ] {
            assert!(refuse_repeated(query, &["to"]).is_ok(), "{query}");
        }
    }
}
