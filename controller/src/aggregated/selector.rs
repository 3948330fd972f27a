//! Parses and evaluates label selectors: `app=web,tier!=db,env in (a,b),!old`.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// Reads a selector.
///
/// # Errors
/// Why it is none, with the part that is wrong.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let mut selector = Selector::default();
    for part in split(text)? {
        selector.extend(requirement(part.trim())?);
    }
    Ok(selector)
}

/// Splits at commas that no parenthesis holds.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut from, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("{text:?} has a parenthesis too many")),
            ',' if !inside => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("{text:?} has a parenthesis that does not end"));
    }
    parts.push(&text[from..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<Expression, String> {
    let bad = || format!("{part:?} is no requirement such as app=web or tier in (a, b)");
    let key = |text: &str| {
        let text = text.trim();
        is_key(text).then(|| text.to_owned()).ok_or_else(bad)
    };
    let value = |text: &str| {
        let text = text.trim();
        is_value(text).then(|| text.to_owned()).ok_or_else(bad)
    };
    if let Some((list, values)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let values = values.split(',').map(value);
        let values: BTreeSet<String> = values.collect::<Result<_, _>>()?;
        let (name, operator) = list
            .trim()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(bad)?;
        return match operator {
            "in" => Ok(Expression::In(key(name)?, values)),
            "notin" => Ok(Expression::NotIn(key(name)?, values)),
            _ => Err(bad()),
        };
    }
    if let Some((name, equal)) = part.split_once("!=") {
        return Ok(Expression::NotEqual(key(name)?, value(equal)?));
    }
    if let Some((name, equal)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Expression::Equal(key(name)?, value(equal)?));
    }
    match part.strip_prefix('!') {
        Some(name) => Ok(Expression::DoesNotExist(key(name)?)),
        None => Ok(Expression::Exists(key(part)?)),
    }
}

/// A DNS prefix with a slash, if any, and a name.
fn is_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let prefixed = prefix.is_none_or(|prefix| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    });
    prefixed && !name.is_empty() && is_value(name)
}

fn is_value(text: &str) -> bool {
    text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use kube::core::SelectorExt as _;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        parse(selector).unwrap().matches(&labels.collect())
    }

    #[test]
    fn every_form_selects_as_kubernetes_does() {
        let web: &[_] = &[("app", "web"), ("weft.dev/tier", "front")];
        for (selector, expected) in [
            ("app=web", true),
            ("app==web", true),
            ("app = web , weft.dev/tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("other notin (db)", true),
            ("app", true),
            ("!app", false),
            ("app=web,app in (db)", false),
        ] {
            assert_eq!(selects(selector, web), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_and_named() {
        for selector in [
            "app=web,",
            "=web",
            "app in web",
            "app in (a",
            "app)(",
            "a b",
            "app=we/b",
            "app within (a)",
        ] {
            let error = parse(selector).unwrap_err();
            assert!(error.contains('"'), "{error}");
        }
    }
}
