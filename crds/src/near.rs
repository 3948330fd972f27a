//! Suggests the known name that a misspelt one probably means.

/// The first of the known names that is near to what was written.
pub fn near<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().find(|known| is_near(written, known))
}

/// The end of a sentence about a name that is not there; empty where none is near.
#[must_use]
pub fn hint<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    near(written, known).map_or_else(String::new, |name| format!("; you may mean {name}"))
}

/// Whether one is the other in other case, with letters in another order, or with one
/// more or less.
fn is_near(written: &str, known: &str) -> bool {
    let letters = |text: &str| {
        let mut letters: Vec<u8> = text.bytes().map(|b| b.to_ascii_uppercase()).collect();
        letters.sort_unstable();
        letters
    };
    // A slip does not make a name so much longer.
    if written.len().abs_diff(known.len()) > 1 {
        return false;
    }
    let (written, known) = (letters(written), letters(known));
    let (long, short) = if written.len() >= known.len() {
        (written, known)
    } else {
        (known, written)
    };
    // What the longer has more, letter by letter of both in order.
    let mut rest = short.iter().peekable();
    let more = long
        .iter()
        .filter(|letter| rest.next_if_eq(letter).is_none())
        .count();
    rest.peek().is_none() && more <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_found_only_when_similar() {
        let known = ["attempts", "backoff", "codes"];
        let meant = |written| near(written, known);
        assert_eq!(meant("attempt"), Some("attempts"));
        assert_eq!(meant("Attempts"), Some("attempts"));
        assert_eq!(meant("backof"), Some("backoff"));
        assert_eq!(meant("cdoes"), Some("codes"));
        assert_eq!(meant("retries"), None);
        assert_eq!(meant(""), None);
    }
}
