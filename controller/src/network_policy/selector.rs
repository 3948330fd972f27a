//! Evaluates which pods a label selector selects.
//!
//! kube's `Selector` is not used: an operator that it does not know is an error there and
//! has to pick here, and it asks labels in maps of `String`, a copy for each pod.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels by name.
pub(super) type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Whether the selector picks a pod with these labels; an absent one picks every pod.
///
/// It is used for what foreign policies select, and there "yes" is the careful answer: so an
/// operator that is not known picks.
pub(super) fn picks(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else {
        return true;
    };
    let exact = selector.match_labels.iter().flatten();
    let mut requirements = selector.match_expressions.iter().flatten();
    let value = |name: &str| labels.get(name).map(Arc::as_ref);
    exact
        .into_iter()
        .all(|(name, wanted)| value(name) == Some(wanted.as_str()))
        && requirements.all(|requirement| {
            let actual = value(&requirement.key);
            let among = |actual: &str| requirement.values.iter().flatten().any(|one| one == actual);
            match requirement.operator.as_str() {
                "In" => actual.is_some_and(among),
                "NotIn" => !actual.is_some_and(among),
                "Exists" => actual.is_some(),
                "DoesNotExist" => actual.is_none(),
                _ => true,
            }
        })
}

/// Whether a pod can carry this label at all. One that cannot would make the API
/// server refuse the whole policy that selects by it.
pub(super) fn can_be_label(name: &str, value: &str) -> bool {
    let (prefix, short) = match name.split_once('/') {
        Some((prefix, short)) => (Some(prefix), short),
        None => (None, name),
    };
    prefix.is_none_or(is_domain) && !short.is_empty() && is_value(short) && is_value(value)
}

/// Whether a label can have this value: at most 63 characters, letters and digits at
/// both ends.
pub(super) fn is_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_domain(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| inner(c) && c != '-');
    text.len() <= 253
        && text.split('.').all(|label| {
            label.chars().all(inner)
                && ends(label.chars().next())
                && ends(label.chars().next_back())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn selectors_mean_what_kubernetes_documents() {
        let web = labels(&[("app", "web"), ("tier", "front")]);
        let none = labels(&[]);
        let table = [
            (json!({}), true, true),
            (json!({"matchLabels": {"app": "web"}}), true, false),
            (
                json!({"matchLabels": {"app": "web", "tier": "back"}}),
                false,
                false,
            ),
            (one("app", "In", &["web", "api"]), true, false),
            (one("app", "In", &["api"]), false, false),
            (one("app", "NotIn", &["web"]), false, true),
            (one("app", "NotIn", &["api"]), true, true),
            (one("app", "Exists", &[]), true, false),
            (one("app", "DoesNotExist", &[]), false, true),
            (one("app", "Younger", &[]), true, true),
        ];
        for (selector, on_web, on_none) in table {
            let read: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(picks(Some(&read), &web), on_web, "{selector}");
            assert_eq!(picks(Some(&read), &none), on_none, "{selector}");
        }
        assert!(picks(None, &none));
    }

    fn one(key: &str, operator: &str, values: &[&str]) -> serde_json::Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn impossible_pod_labels_are_distinguished() {
        for (name, value) in [("app", "web"), ("a.b/c_d.e", ""), ("x", "A-1_b.c")] {
            assert!(can_be_label(name, value), "{name}={value}");
        }
        let long = "x".repeat(64);
        for (name, value) in [
            ("", "a"),
            ("a b", "a"),
            ("A/b", "c"),
            ("-/b", "c"),
            ("a/", "c"),
            ("a/b/c", "d"),
            ("app", "-web"),
            ("app", "we b"),
            ("app", &long),
            (&long, ""),
        ] {
            assert!(!can_be_label(name, value), "{name}={value}");
        }
    }
}
