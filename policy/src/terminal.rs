//! Finds the characters that a terminal acts upon, and escapes them in JSON. Names, paths and
//! reasons come from any author of objects: one of these among them could move the cursor, turn a
//! line around or hide part of it.
//!
//! Claims: observe-16

use std::fmt::Write as _;

/// Whether a terminal, or whatever else shows text, might act upon a character: those that
/// control, turn the direction of writing, take no place, or are none.
#[must_use]
pub fn acts_upon(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{fffe}'..='\u{ffff}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// JSON that means the same, with every such character of its texts written as an escape: at most
/// three times as long as it was, and six times where all of it is DEL. What is ASCII, as nearly
/// all of it is, is looked at once and handed back.
#[must_use]
pub fn escaped_json(json: String) -> String {
    // Writers of JSON escape what is below U+0020 in texts. Of ASCII only DEL acts besides.
    if json.bytes().all(|byte| byte < 0x7f) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter < ' ' || !acts_upon(letter) {
            escaped.push(letter);
            continue;
        }
        // JSON has two escapes for one beyond U+FFFF.
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a String does not fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_bidi_and_invisible_characters_affect_terminals() {
        for letter in [
            '\0',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{9f}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{3164}',
            '\u{feff}',
            '\u{fff9}',
            '\u{fffe}',
            '\u{e0001}',
            '\u{e007f}',
        ] {
            assert!(acts_upon(letter), "{letter:?}");
        }
        let ordinary =
            "shop/cart-v1:8080 GET /a%20b?c=\"d\"\\ caf\u{e9} \u{5d0}\u{4e2d}\u{fffd}\u{1f600}";
        assert_eq!(ordinary.chars().find(|letter| acts_upon(*letter)), None);
    }

    #[test]
    fn json_escapes_only_characters_that_affect_terminals() {
        for ordinary in [
            "",
            "{\"path\":\"/a\\n\\u001b\"}\n",
            "{\"path\":\"/caf\u{e9}/\u{4e2d}\u{1f600}\"}\n",
        ] {
            assert_eq!(escaped_json(ordinary.to_owned()), ordinary);
        }
        let hostile = "{\"path\":\"/\u{202e}x\u{9b}2J\u{7f}\u{e0041}\u{e9}\"}\n";
        assert_eq!(
            escaped_json(hostile.to_owned()),
            "{\"path\":\"/\\u202ex\\u009b2J\\u007f\\udb40\\udc41\u{e9}\"}\n"
        );
        let longest = "\u{80}".repeat(1000);
        assert_eq!(escaped_json(longest.clone()).len(), 3 * longest.len());
        assert_eq!(escaped_json("\u{7f}".repeat(1000)).len(), 6 * 1000);
    }

    fn file(path: &str) -> String {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(root.join(path)).unwrap()
    }

    fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
        let (_, rest) = text.split_once(before).unwrap();
        rest.split_once(after).unwrap().0
    }

    /// The code that stands first in this text, as `\u001f` or `\u{1f}`, and what is after it.
    fn code(text: &str) -> (u32, &str) {
        let text = text.strip_prefix("\\u").unwrap();
        let (digits, rest) = match text.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap(),
            None => text.split_at(4),
        };
        (u32::from_str_radix(digits, 16).unwrap(), rest)
    }

    #[test]
    fn page_escapes_the_same_characters() {
        let page = file("dashboard/src/text.ts");
        let mut rest = between(&page, "const ACTS =\n  /[", "]/gu;");
        let mut ranges = Vec::new();
        while !rest.is_empty() {
            let (first, after) = code(rest);
            let (last, after) = match after.strip_prefix('-') {
                Some(after) => code(after),
                None => (first, after),
            };
            ranges.push(first..=last);
            rest = after;
        }
        for letter in '\0'..=char::MAX {
            let there = ranges
                .iter()
                .any(|range| range.contains(&u32::from(letter)));
            assert_eq!(there, acts_upon(letter), "{letter:?}");
        }
    }
}
