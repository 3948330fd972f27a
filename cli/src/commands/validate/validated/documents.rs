//! Splits a text into YAML documents, so that an invalid one does not hide the others.
//!
//! Claims: observe-63

use crate::yaml::BadYaml;
use crate::yaml::tree::{self, Document};

/// Documents that cannot be read, of one text, before the rest of it is left alone. A file of
/// which more is broken is none of manifests.
const MOST_UNREADABLE: usize = 100;

/// One document, or why it is none.
pub(super) struct Part {
    /// From 1.
    pub(super) number: usize,
    /// Lines of the text before it, which its own lines do not count.
    pub(super) before: usize,
    pub(super) read: Result<Document, BadYaml>,
}

/// Every document of a text, in its order. Places of what cannot be read are the text's.
pub(super) fn read(text: &str) -> Vec<Part> {
    let whole = match tree::parse(text) {
        Ok(documents) => return numbered(documents.into_iter().map(|one| (0, Ok(one)))),
        Err(bad) => bad,
    };
    let mut parts = Vec::new();
    let mut unreadable = 0;
    for (before, section) in sections(text) {
        if section.lines().all(says_nothing) {
            continue;
        }
        match tree::parse(section) {
            Ok(documents) => parts.extend(documents.into_iter().map(|one| (before, Ok(one)))),
            Err(mut bad) => {
                bad.line += before;
                unreadable += 1;
                if unreadable == MOST_UNREADABLE {
                    bad.text.push_str("; what follows is not read");
                }
                parts.push((before, Err(bad)));
            }
        }
        if unreadable == MOST_UNREADABLE {
            break;
        }
    }
    if unreadable == 0 {
        // What is wrong lies between the documents.
        parts.push((0, Err(whole)));
    }
    numbered(parts.into_iter())
}

fn numbered(parts: impl Iterator<Item = (usize, Result<Document, BadYaml>)>) -> Vec<Part> {
    let parts = parts.zip(1..);
    parts
        .map(|((before, read), number)| Part {
            number,
            before,
            read,
        })
        .collect()
}

/// The text cut where a line begins a document, each piece with the lines before it. No value
/// goes on beyond such a line.
fn sections(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut begin = (0, 0);
    let mut end = 0;
    let mut cuts = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if begins_document(line) {
            cuts.push((begin, end));
            begin = (number, end);
        }
        end += line.len();
    }
    cuts.push((begin, end));
    cuts.into_iter()
        .map(move |((before, from), to)| (before, &text[from..to]))
}

fn begins_document(line: &str) -> bool {
    let rest = line.strip_prefix("---");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Whether the line is empty, a comment, a directive or a mark of where a document begins or
/// ends.
fn says_nothing(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with(['#', '%']) || ["---", "..."].contains(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each document its number and either its line in the text or where it is no YAML.
    fn lines(text: &str) -> Vec<(usize, Result<usize, usize>)> {
        let parts = read(text).into_iter();
        let lines = parts.map(|part| {
            let line = match part.read {
                Ok(document) => Ok(part.before + document.line()),
                Err(bad) => Err(bad.line),
            };
            (part.number, line)
        });
        lines.collect()
    }

    #[test]
    fn invalid_document_hides_no_other_and_shifts_no_line() {
        let text = "# head\n---\na: 1\n---\nb: {{ x }}\n---\n# c\n\nc: 1\nc: 2\n--- # d\nd: |\n  ---\n  x\n";
        assert_eq!(
            lines(text),
            [(1, Ok(3)), (2, Err(5)), (3, Err(10)), (4, Ok(12))]
        );
        let good = "a: 1\n---\nb: |\n  ---\n  x\n---\nc: 1\n";
        assert_eq!(lines(good), [(1, Ok(1)), (2, Ok(3)), (3, Ok(7))]);
    }

    #[test]
    fn broken_text_is_abandoned_after_hundred_documents() {
        let parts = read(&"---\na: [\n".repeat(10_000));
        assert_eq!(parts.len(), MOST_UNREADABLE);
        let last = parts.into_iter().next_back().unwrap();
        let bad = last.read.unwrap_err();
        assert!(bad.text.ends_with("what follows is not read"), "{bad}");
    }
}
