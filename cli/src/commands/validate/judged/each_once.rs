//! Merges the errors of the API server's schema and of the webhook, each once: both validate the
//! same object, and find many of the same errors.

use crds::smi::judge::{Code, Mistake, Severity};

/// Removes from each what the other reports better. About a shape the schema has the plainer
/// message; about everything else the webhook knows what follows from it.
pub(super) fn each_once(by_schema: &mut Vec<Mistake>, judged: &mut Vec<Mistake>) {
    judged.retain(|one| {
        let is_reported = |other: &Mistake| is_of_shape(other) && stored(&other.field) == one.field;
        !is_of_shape(one) || !by_schema.iter().any(is_reported)
    });
    by_schema.retain(|one| {
        let field = stored(&one.field);
        let is_reported =
            |other: &Mistake| other.severity == Severity::Refuse && is_within(&other.field, &field);
        !judged.iter().any(is_reported)
    });
}

fn is_of_shape(mistake: &Mistake) -> bool {
    mistake.code == Code::Unreadable
}

/// Whether one is the other, or a part of it.
fn is_within(field: &str, whole: &str) -> bool {
    let rest = field.strip_prefix(whole);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A field as it is named where it is stored: the oldest versions have it at the top of the
/// object.
fn stored(field: &str) -> String {
    if let Some(rest) = field.strip_prefix("specs") {
        return format!("spec.rules{rest}");
    }
    let is_at_top = ["destination", "sources", "matches"];
    if is_at_top.iter().any(|top| is_within(field, top)) {
        return format!("spec.{field}");
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(field: &str, code: Code, text: &str) -> Mistake {
        Mistake {
            field: field.to_owned(),
            severity: Severity::Refuse,
            code,
            text: text.to_owned(),
        }
    }

    /// The fields that are left of the schema's errors, and of the webhook's.
    fn left(by_schema: (&str, Code), judged: (&str, Code)) -> (Vec<String>, Vec<String>) {
        let mut by_schema = vec![mistake(by_schema.0, by_schema.1, "by schema")];
        let mut judged = vec![mistake(judged.0, judged.1, "judged")];
        each_once(&mut by_schema, &mut judged);
        let fields = |all: Vec<Mistake>| all.into_iter().map(|one| one.field).collect();
        (fields(by_schema), fields(judged))
    }

    #[test]
    fn error_found_by_schema_and_webhook_is_reported_once() {
        const WEIGHT: &str = "spec.backends[0].weight";
        let (shape, value) = (Code::Unreadable, Code::Invalid);
        let (first, second) = ((true, false), (false, true));
        for (by_schema, judged, left_over) in [
            ((WEIGHT, shape), (WEIGHT, shape), first),
            ((WEIGHT, value), (WEIGHT, shape), second),
            ((WEIGHT, value), (WEIGHT, value), second),
            (
                ("destination", shape),
                ("spec.destination.name", value),
                second,
            ),
            (
                ("specs[0].name", value),
                ("spec.rules[0].name", value),
                second,
            ),
            // Control: other fields, if only by the end of a name.
            (
                (WEIGHT, value),
                ("spec.backends[1].weight", value),
                (true, true),
            ),
            (
                ("spec.matches", value),
                ("spec.matchesOf", value),
                (true, true),
            ),
        ] {
            let (of_schema, of_webhook) = left(by_schema, judged);
            let found = (!of_schema.is_empty(), !of_webhook.is_empty());
            assert_eq!(found, left_over, "{by_schema:?} {judged:?}");
        }
    }
}
