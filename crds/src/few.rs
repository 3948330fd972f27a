//! Names in a sentence, of many of them the first.

/// Names that a sentence holds; it only counts what is beyond.
const NAMED: usize = 4;

/// The first of so many names: `a`, `a and b`, or `a, b, c, d and 3 more`.
#[must_use]
pub fn few(names: impl IntoIterator<Item = impl AsRef<str>>, of: usize) -> String {
    let names = names.into_iter().take(NAMED);
    let shown: Vec<String> = names.map(|name| name.as_ref().to_owned()).collect();
    match (of.saturating_sub(shown.len()), shown.as_slice()) {
        (0, [before @ .., last]) if !before.is_empty() => {
            format!("{} and {last}", before.join(", "))
        }
        (0, _) => shown.join(", "),
        (more, _) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_names_are_said_and_the_others_counted() {
        let names = ["a", "b", "c", "d", "e"];
        for (named, of, text) in [
            (1, 1, "a"),
            (2, 2, "a and b"),
            (4, 4, "a, b, c and d"),
            (5, 5, "a, b, c, d and 1 more"),
            // Of more than were named.
            (1, 9, "a and 8 more"),
            (5, 9, "a, b, c, d and 5 more"),
            (0, 0, ""),
        ] {
            assert_eq!(few(&names[..named], of), text);
        }
    }
}
