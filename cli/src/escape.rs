//! Escapes texts of the cluster for a terminal. Any author of an object chooses its names, reasons
//! and paths; a control character among them could move the cursor or hide a line.
//!
//! Claims: observe-27

use std::fmt::Write as _;

use policy::terminal::acts_upon;

/// The text with every character that a terminal might act upon written as an escape.
#[must_use]
pub(crate) fn plain(text: &str) -> String {
    replaced(text, acts_upon, in_words)
}

/// The same of several lines, whose ends stay.
#[must_use]
pub(crate) fn lines(text: &str) -> String {
    replaced(text, acts_in_a_line, in_words)
}

/// JSON that means the same, with every such character of its texts written as an escape.
#[must_use]
pub(crate) fn json(text: &str) -> String {
    replaced(text, acts_in_a_value, |escaped, letter| {
        for unit in letter.encode_utf16(&mut [0; 2]).iter() {
            // Writing to a String does not fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    })
}

/// The same of JSON that is read as YAML, which knows no escape of two halves.
#[must_use]
pub(crate) fn yaml(text: &str) -> String {
    replaced(text, acts_in_a_value, |escaped, letter| {
        let _ = match u32::from(letter) {
            code @ 0x1_0000.. => write!(escaped, "\\U{code:08x}"),
            code => write!(escaped, "\\u{code:04x}"),
        };
    })
}

/// Whether a terminal might act upon any of it, but for the ends of its lines.
#[must_use]
pub(crate) fn acts_but_for_lines(text: &str) -> bool {
    text.chars().any(acts_in_a_line)
}

fn acts_in_a_line(letter: char) -> bool {
    letter != '\n' && acts_upon(letter)
}

/// What is left of ASCII's stands between values of JSON, not in them.
fn acts_in_a_value(letter: char) -> bool {
    letter > '\u{1f}' && acts_upon(letter)
}

fn in_words(escaped: &mut String, letter: char) {
    let _ = write!(escaped, "{}", letter.escape_default());
}

fn replaced(
    text: &str,
    is_replaced: impl Fn(char) -> bool,
    write: impl Fn(&mut String, char),
) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_replaced(letter) {
            write(&mut escaped, letter);
        } else {
            escaped.push(letter);
        }
    }
    escaped
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
        assert_eq!(plain("a\u{61c}b\u{ad}c"), "a\\u{61c}b\\u{ad}c");
        assert_eq!(plain("a\u{e0041}"), "a\\u{e0041}", "an unseen letter");
        assert_eq!(lines("a\nb\r\u{1b}[A"), "a\nb\\r\\u{1b}[A");
    }

    #[test]
    fn json_means_the_same_and_holds_nothing_that_acts() {
        for letter in (0..=0x2100)
            .chain([0x3164, 0xfeff, 0xfff9, 0xffff, 0x1f600, 0x1d173, 0xe0041])
            .filter_map(char::from_u32)
        {
            let value = serde_json::json!({"agent": format!("a{letter}b")});
            let whole = serde_json::to_string_pretty(&value).unwrap();
            let (text, in_yaml) = (json(&whole), yaml(&whole));
            for text in [&text, &in_yaml] {
                assert!(!acts_but_for_lines(text), "{text}");
            }
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, value);
            let read: serde_json::Value = serde_yaml_ng::from_str(&in_yaml).unwrap();
            assert_eq!(read, value, "{in_yaml}");
        }
    }
}
