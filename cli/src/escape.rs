//! Text of the cluster on a terminal. Names, reasons and paths come from whoever may write
//! them; a control character among them could move the cursor or hide a line.

use std::fmt::Write as _;

/// The text with every character that a terminal might act upon written as an escape.
#[must_use]
pub(crate) fn plain(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if acts(letter) {
            // Writing to a String does not fail.
            let _ = write!(escaped, "{}", letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// JSON that means the same, with every such character of its texts written as an escape.
#[must_use]
pub(crate) fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        // What is left of ASCII's stands between values, not in them. None of the others is
        // beyond U+FFFF.
        if acts(letter) && letter > '\u{1f}' {
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// Whether a terminal might act upon any of it, but for the ends of its lines.
#[must_use]
pub(crate) fn acts_but_for_lines(text: &str) -> bool {
    text.chars().any(|letter| letter != '\n' && acts(letter))
}

/// Control characters, and those that turn the direction of writing or take no place.
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_upon_comes_through() {
        assert_eq!(plain("cart-v1 \u{fc}"), "cart-v1 \u{fc}");
        assert_eq!(plain("a\u{1b}[31mred"), "a\\u{1b}[31mred");
        assert_eq!(plain("a\r\nb\tc"), "a\\r\\nb\\tc");
        assert_eq!(plain("\u{9b}2J"), "\\u{9b}2J", "C1 controls too");
        assert_eq!(plain("\u{202e}gnp.exe"), "\\u{202e}gnp.exe");
    }

    #[test]
    fn json_means_the_same_and_holds_nothing_that_acts() {
        for letter in (0..=0x2100)
            .chain([0xfeff, 0x1f600])
            .filter_map(char::from_u32)
        {
            let value = serde_json::json!({"agent": format!("a{letter}b")});
            let text = json(&serde_json::to_string_pretty(&value).unwrap());
            assert!(!text.chars().any(|one| acts(one) && one != '\n'), "{text}");
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, value);
        }
    }
}
