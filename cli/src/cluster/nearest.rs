//! Finds the existing name nearest to a mistyped one.
//!
//! Typing errors are counted, unlike in `crds::near`, which looks for a name that is distinct from
//! a field's other names: names of a cluster are alike (`cart`, `cart-v1`), and of them only the
//! one with the fewest errors is worth a line.
//!
//! Claims: observe-43

use std::fmt::Display;

/// Letters of a name per typing error that is tolerated.
const LETTERS: usize = 3;

/// The known name that is nearest to what was typed, if any is near; the first of several.
#[must_use]
pub(crate) fn nearest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let most = (typed.len() / LETTERS).max(1);
    known
        .into_iter()
        .filter(|known| known.len().abs_diff(typed.len()) <= most)
        .map(|known| (mistakes(typed, known), known))
        .filter(|(mistakes, _)| *mistakes <= most)
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, known)| known)
}

/// The end of a sentence about a name that is none.
#[must_use]
pub(crate) fn hint(meant: Option<impl Display>) -> String {
    meant.map_or_else(String::new, |meant| format!("; you may mean {meant}"))
}

/// Letters that are too many, missing or others, and neighbours that changed places.
fn mistakes(typed: &str, known: &str) -> usize {
    let (typed, known) = (typed.as_bytes(), known.as_bytes());
    let same = |one: u8, other: u8| one.eq_ignore_ascii_case(&other);
    // Of the beginnings of what was typed, each against all beginnings of the known name.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=known.len()).collect();
    for (i, letter) in typed.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, right) in known.iter().enumerate() {
            let wrong = usize::from(!same(*letter, *right));
            let mut least = (last[j] + wrong).min(last[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && same(*letter, known[j - 1]) && same(typed[i - 1], *right) {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[known.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_has_fewest_typos_within_limit() {
        let known = ["cart", "cart-v1", "cart-v2", "payments", "web"];
        let meant = |typed| nearest(typed, known);
        assert_eq!(meant("crat"), Some("cart"));
        assert_eq!(meant("wbe"), Some("web"));
        assert_eq!(meant("wab"), Some("web"));
        assert_eq!(meant("Cart"), Some("cart"));
        assert_eq!(meant("cart-v3"), Some("cart-v1"), "the first of two");
        assert_eq!(meant("cartv2"), Some("cart-v2"));
        assert_eq!(meant("paymnt"), Some("payments"));
        assert_eq!(meant("pay"), None);
        assert_eq!(meant("vault"), None);
        assert_eq!(meant(""), None);
        assert_eq!(nearest("web", []), None);
    }
}
