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
}
