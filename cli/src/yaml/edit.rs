//! Candidate edits of the text for one change, the most natural first. None is trusted: `change`
//! parses the result of each and takes the first that changes what it should and no more.

use granit_parser::ScalarStyle;
use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::tree::{Document, Id, What};

/// Texts with the change in them, best first.
pub(super) fn candidates(
    text: &str,
    document: &Document,
    operation: &PatchOperation,
) -> Vec<String> {
    let pointer = operation.path().to_string();
    let editor = Editor {
        text,
        document,
        newline: if text.contains("\r\n") { "\r\n" } else { "\n" },
    };
    let Some(location) = editor.location(&pointer) else {
        return Vec::new();
    };
    match operation {
        PatchOperation::Add(add) => match (&location.what, location.entry) {
            (Kind::Member(_), Some(_)) => editor.replace(&location, &add.value),
            (Kind::Member(name), None) => editor.add_member(location.parent, name, &add.value),
            (Kind::Item(at), _) => editor.add_item(location.parent, *at, &add.value),
        },
        PatchOperation::Replace(replace) => editor.replace(&location, &replace.value),
        PatchOperation::Remove(_) => editor.remove(&location),
        _ => Vec::new(),
    }
}

/// The line of a JSON pointer, or of what is written of it.
pub(super) fn line(document: &Document, pointer: &str) -> usize {
    let (mut at, mut line) = (document.root(), document.line());
    for token in tokens(pointer) {
        let entry = document.entry(at, &token);
        let item = || {
            let item = document.item(at, token.parse().ok()?)?;
            Some((item, item))
        };
        let Some((key, value)) = entry.or_else(item) else {
            break;
        };
        line = document.node(key).line;
        at = value;
    }
    line
}

fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    let tokens = pointer.split('/').skip(1);
    tokens.map(|token| token.replace("~1", "/").replace("~0", "~"))
}

struct Editor<'a> {
    text: &'a str,
    document: &'a Document,
    newline: &'static str,
}

/// A field, whether it is there or not.
struct FieldLocation {
    parent: Id,
    what: Kind,
    /// Its value, and for a member the key before it.
    entry: Option<(Id, Id)>,
    /// The key under which the parent itself stands.
    parent_key: Option<Id>,
}

enum Kind {
    Member(String),
    Item(usize),
}

/// Bytes that are replaced by others.
struct Splice {
    start: usize,
    end: usize,
    text: String,
}

impl Editor<'_> {
    fn location(&self, pointer: &str) -> Option<FieldLocation> {
        let document = self.document;
        let mut tokens = tokens(pointer).peekable();
        let (mut parent, mut parent_key) = (document.root(), None);
        loop {
            let token = tokens.next()?;
            let at = document.followed(parent);
            let (what, entry) = match &document.node(at).what {
                What::Mapping { .. } => {
                    let entry = document.entry(at, &token);
                    (Kind::Member(token), entry)
                }
                What::Sequence { items, .. } => {
                    let number = match token.as_str() {
                        "-" => items.len(),
                        token => token.parse().ok()?,
                    };
                    let item = items.get(number).map(|item| (*item, *item));
                    (Kind::Item(number), item)
                }
                _ => return None,
            };
            if tokens.peek().is_none() {
                return Some(FieldLocation {
                    parent: at,
                    what,
                    entry,
                    parent_key,
                });
            }
            let (key, value) = entry?;
            parent_key = matches!(what, Kind::Member(_)).then_some(key);
            parent = value;
        }
    }

    fn write(&self, splice: &Splice) -> Option<String> {
        let before = self.text.get(..splice.start)?;
        let after = self.text.get(splice.end..)?;
        Some(format!("{before}{}{after}", splice.text))
    }

    fn all(&self, splices: Vec<Option<Splice>>) -> Vec<String> {
        let splices = splices.into_iter().flatten();
        splices.filter_map(|splice| self.write(&splice)).collect()
    }

    fn add_member(&self, mapping: Id, name: &str, value: &Value) -> Vec<String> {
        let node = self.document.node(mapping);
        let What::Mapping { entries, flow } = &node.what else {
            return Vec::new();
        };
        let json = format!("{}: {}", json!(name), value);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return self.all(vec![insert(node.start + 1, json)]);
        };
        let start = self.document.node(first.0).start;
        let end = self.end_of_entry(*last);
        if *flow {
            let between = self.between_flow(node.start, start);
            return self.all(vec![insert(end, format!("{between}{json}"))]);
        }
        let column = self.document.node(first.0).column;
        let indent = " ".repeat(column);
        let newline = self.newline;
        let block = self.block(&json!({ name: value }), column);
        let mut candidates = Vec::new();
        for written in [block, json] {
            let line_end = self.line_end(end);
            candidates.push(insert(line_end, format!("{newline}{indent}{written}")));
            candidates.push(insert(start, format!("{written}{newline}{indent}")));
        }
        self.all(candidates)
    }

    fn add_item(&self, sequence: Id, at: usize, value: &Value) -> Vec<String> {
        let node = self.document.node(sequence);
        let What::Sequence { items, flow } = &node.what else {
            return Vec::new();
        };
        let before = at.checked_sub(1).and_then(|before| items.get(before));
        if *flow {
            return self.all(vec![match (before, items.first()) {
                (None, None) => insert(node.start + 1, value.to_string()),
                (None, Some(first)) => {
                    let start = self.document.node(*first).start;
                    insert(start, format!("{value}, "))
                }
                (Some(before), _) => {
                    let start = self.document.node(items[0]).start;
                    let between = self.between_flow(node.start, start);
                    insert(self.end_of(*before), format!("{between}{value}"))
                }
            }]);
        }
        let Some((dash, column)) = items.first().and_then(|first| self.dash(*first)) else {
            return Vec::new();
        };
        let newline = self.newline;
        let indent = " ".repeat(column);
        let candidates = [self.block(value, column + 2), value.to_string()];
        let candidates = candidates.map(|written| match before {
            None => insert(dash, format!("- {written}{newline}{indent}")),
            Some(before) => {
                let end = self.line_end(self.end_of(*before));
                insert(end, format!("{newline}{indent}- {written}"))
            }
        });
        self.all(candidates.into())
    }

    fn replace(&self, location: &FieldLocation, value: &Value) -> Vec<String> {
        let Some((key, entry)) = location.entry else {
            return Vec::new();
        };
        let node = self.document.node(entry);
        let collection = value.is_object() || value.is_array();
        let json = value.to_string();
        if node.start == node.end && matches!(location.what, Kind::Member(_)) {
            let column = self.document.node(key).column + 2;
            let after = self.after_colon(key);
            let indented = format!(
                "{}{}{}",
                self.newline,
                " ".repeat(column),
                self.block(value, column)
            );
            let below = insert(self.line_end(after), indented);
            let beside = insert(after, format!(" {json}"));
            let plain = insert(after, format!(" {}", self.block(value, column)));
            return self.all(if collection {
                vec![below, beside]
            } else {
                vec![plain, beside]
            });
        }
        let over = |text: String| {
            let (start, end) = (node.start, self.end_of(entry));
            Some(Splice { start, end, text })
        };
        let was_block = match &node.what {
            What::Mapping { flow, .. } | What::Sequence { flow, .. } => !flow,
            _ => false,
        };
        let block = over(self.block(value, node.column));
        self.all(if collection && !was_block {
            vec![over(json)]
        } else {
            vec![block, over(json)]
        })
    }

    fn remove(&self, location: &FieldLocation) -> Vec<String> {
        let Some((first, entry)) = location.entry else {
            return Vec::new();
        };
        let parent = self.document.node(location.parent);
        let (parts, flow): (Vec<(Id, Id)>, bool) = match &parent.what {
            What::Mapping { entries, flow } => (entries.clone(), *flow),
            What::Sequence { items, flow } => {
                (items.iter().map(|item| (*item, *item)).collect(), *flow)
            }
            _ => return Vec::new(),
        };
        let Some(at) = parts.iter().position(|(key, _)| *key == first) else {
            return Vec::new();
        };
        let start = self.document.node(first).start;
        let end = self.end_of_entry((first, entry));
        let next = parts
            .get(at + 1)
            .map(|next| self.document.node(next.0).start);
        let before = at
            .checked_sub(1)
            .map(|before| self.end_of_entry(parts[before]));
        let cut = |start: usize, end: usize| {
            let text = String::new();
            Some(Splice { start, end, text })
        };
        if flow {
            return self.all(vec![match (next, before) {
                (Some(next), _) => cut(start, next),
                (None, Some(before)) => cut(before, end),
                (None, None) => cut(start, end),
            }]);
        }
        if parts.len() == 1 {
            return self.all(self.emptied(location, parent.start, end));
        }
        let dash = match location.what {
            Kind::Item(_) => self.dash(first).map_or(start, |(dash, _)| dash),
            Kind::Member(_) => start,
        };
        self.all(vec![
            self.whole_lines(dash, end),
            next.and_then(|next| cut(start, next)),
        ])
    }

    /// A collection loses the only thing in it.
    fn emptied(&self, location: &FieldLocation, start: usize, end: usize) -> Vec<Option<Splice>> {
        let empty = match location.what {
            Kind::Member(_) => "{}",
            Kind::Item(_) => "[]",
        };
        let beside = location.parent_key.map(|key| Splice {
            start: self.after_colon(key),
            end,
            text: format!(" {empty}"),
        });
        let text = empty.to_owned();
        vec![beside, Some(Splice { start, end, text })]
    }

    /// The lines of something that begins its first line.
    fn whole_lines(&self, start: usize, end: usize) -> Option<Splice> {
        let line = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        if !self.text[line..start].bytes().all(|byte| byte == b' ') {
            return None;
        }
        let line_end = self.line_end(end);
        let after = self.text[line_end..].find('\n');
        let text = String::new();
        Some(match after {
            Some(newline) => Splice {
                start: line,
                end: line_end + newline + 1,
                text,
            },
            // The last line has no end of its own: the one before loses its.
            None => Splice {
                start: self.text[..line].trim_end_matches(['\n', '\r']).len(),
                end: line_end,
                text,
            },
        })
    }

    /// As block YAML whose first line stands at `column` already.
    fn block(&self, value: &Value, column: usize) -> String {
        let Ok(yaml) = serde_yaml_ng::to_string(value) else {
            return value.to_string();
        };
        let indent = " ".repeat(column);
        let mut written = String::new();
        for (at, line) in yaml.trim_end().lines().enumerate() {
            if at > 0 {
                written.push_str(self.newline);
                if !line.is_empty() {
                    written.push_str(&indent);
                }
            }
            written.push_str(line);
        }
        written
    }

    /// The dash before an item of a block sequence, and its column. The parser reports the start of
    /// a sequence that is not indented at another place.
    fn dash(&self, item: Id) -> Option<(usize, usize)> {
        let before = &self.text[..self.document.node(item).start];
        let dash = before.rfind('-')?;
        let line = before[..dash].rfind('\n').map_or(0, |at| at + 1);
        Some((dash, before[line..dash].chars().count()))
    }

    /// What stands between two entries of a flow collection.
    fn between_flow(&self, start: usize, first: usize) -> String {
        let opening = &self.text[start..first];
        match opening.rfind('\n') {
            None => ", ".to_owned(),
            Some(at) => format!(",{}{}", self.newline, &opening[at + 1..]),
        }
    }

    /// Where the line of a byte ends, before its line break.
    fn line_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        at + line.trim_end_matches('\r').len()
    }

    fn after_colon(&self, key: Id) -> usize {
        let end = self.document.node(key).end;
        let rest = self.text.get(end..).unwrap_or_default();
        rest.find(':').map_or(end, |colon| end + colon + 1)
    }

    fn end_of_entry(&self, (key, value): (Id, Id)) -> usize {
        let node = self.document.node(value);
        if key != value && node.start == node.end {
            return self.after_colon(key);
        }
        self.end_of(value)
    }

    /// The byte after what is written of a node. What the parser calls the end of a block
    /// is the begin of what follows it.
    fn end_of(&self, id: Id) -> usize {
        let node = self.document.node(id);
        let last = match &node.what {
            What::Mapping {
                entries,
                flow: false,
            } => entries.last().map(|entry| self.end_of_entry(*entry)),
            What::Sequence { items, flow: false } => items.last().map(|item| self.end_of(*item)),
            What::Scalar {
                style: ScalarStyle::Literal | ScalarStyle::Folded,
                ..
            } => {
                let written = self.text.get(node.start..node.end).unwrap_or_default();
                Some(node.start + written.trim_end().len())
            }
            _ => None,
        };
        last.unwrap_or(node.end)
    }
}

fn insert(at: usize, text: String) -> Option<Splice> {
    Some(Splice {
        start: at,
        end: at,
        text,
    })
}
