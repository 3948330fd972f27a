//! The parsed YAML text: a tree of nodes with their positions in it.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};
use serde_json::{Map, Value};

use super::BadYaml;
use super::scalar;

/// Most nodes of a document, aliases counted as often as they are used. An API server
/// takes a megabyte and a half, which holds fewer.
const MOST_NODES: usize = 500_000;
/// Deepest nesting, aliases followed. The API server's reader of JSON goes no deeper.
const DEEPEST: usize = 128;

/// One document of a text.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    nodes: Vec<Node>,
    root: Id,
}

/// A node's place in its document.
pub(super) type Id = usize;

/// One node, with its first byte and the byte after its last.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) start: usize,
    pub(super) end: usize,
    /// From 1.
    pub(super) line: usize,
    /// From 0, in characters.
    pub(super) column: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Scalar {
        text: String,
        style: ScalarStyle,
        /// The tag says that it is text.
        string: bool,
    },
    Sequence {
        items: Vec<Id>,
        flow: bool,
    },
    Mapping {
        entries: Vec<(Id, Id)>,
        flow: bool,
    },
    Alias(Id),
}

/// The documents of a text.
///
/// # Errors
/// The first place that is not YAML, or where a key stands twice.
pub(crate) fn parse(text: &str) -> Result<Vec<Document>, BadYaml> {
    let mut parser = Parser::new_from_str(text);
    let mut documents = Vec::new();
    while let Some((event, _)) = next(&mut parser)? {
        if let Event::DocumentStart(..) = event {
            let mut builder = Builder {
                nodes: Vec::new(),
                anchors: Vec::new(),
                depth: 0,
            };
            let (event, span) = expected(&mut parser)?;
            let root = builder.node(&mut parser, event, span)?;
            documents.push(Document {
                nodes: builder.nodes,
                root,
            });
        }
    }
    Ok(documents)
}

type Events<'a> = Parser<'a, granit_parser::StrInput<'a>>;

/// The next event that is no comment.
fn next<'a>(parser: &mut Events<'a>) -> Result<Option<(Event<'a>, Span)>, BadYaml> {
    loop {
        match parser.next_event() {
            None => return Ok(None),
            Some(Err(error)) => return Err(bad(&error)),
            Some(Ok((Event::Comment(..), _))) => {}
            Some(Ok(found)) => return Ok(Some(found)),
        }
    }
}

fn expected<'a>(parser: &mut Events<'a>) -> Result<(Event<'a>, Span), BadYaml> {
    next(parser)?.ok_or_else(|| BadYaml {
        line: 1,
        column: 1,
        text: "the text ends within a document".to_owned(),
    })
}

fn bad(error: &ScanError) -> BadYaml {
    let at = error.marker();
    BadYaml {
        line: at.line(),
        column: at.col() + 1,
        text: error.info(),
    }
}

struct Builder {
    nodes: Vec<Node>,
    /// Anchor of the parser, and its node.
    anchors: Vec<(usize, Id)>,
    /// Collections that are open.
    depth: usize,
}

impl Builder {
    fn node<'a>(
        &mut self,
        parser: &mut Events<'a>,
        event: Event<'a>,
        span: Span,
    ) -> Result<Id, BadYaml> {
        let at = |text: &str| BadYaml {
            line: span.start.line(),
            column: span.start.col() + 1,
            text: text.to_owned(),
        };
        if self.nodes.len() >= MOST_NODES || self.depth > DEEPEST {
            return Err(at("the document is too large"));
        }
        let offset = |marker: granit_parser::Marker| marker.byte_offset().unwrap_or_default();
        let id = self.nodes.len();
        self.nodes.push(Node {
            start: offset(span.start),
            end: offset(span.end),
            line: span.start.line(),
            column: span.start.col(),
            what: What::Alias(id),
        });
        let what = match event {
            Event::Alias(anchor) => {
                let mut known = self.anchors.iter().rev();
                let found = known.find(|(name, _)| *name == anchor);
                What::Alias(found.ok_or_else(|| at("an alias without its anchor"))?.1)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.anchors.push((anchor, id));
                let string = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
                What::Scalar {
                    text: text.into_owned(),
                    style,
                    string,
                }
            }
            Event::SequenceStart(style, anchor, _) => {
                self.anchors.push((anchor, id));
                self.depth += 1;
                let items = self.items(parser, id)?;
                self.depth -= 1;
                let flow = style == StructureStyle::Flow;
                What::Sequence { items, flow }
            }
            Event::MappingStart(style, anchor, _) => {
                self.anchors.push((anchor, id));
                self.depth += 1;
                let entries = self.entries(parser, id)?;
                self.depth -= 1;
                let flow = style == StructureStyle::Flow;
                What::Mapping { entries, flow }
            }
            _ => return Err(at("no value stands here")),
        };
        self.nodes[id].what = what;
        Ok(id)
    }

    fn items(&mut self, parser: &mut Events<'_>, of: Id) -> Result<Vec<Id>, BadYaml> {
        let mut items = Vec::new();
        loop {
            let (event, span) = expected(parser)?;
            if event == Event::SequenceEnd {
                self.nodes[of].end = span.end.byte_offset().unwrap_or_default();
                return Ok(items);
            }
            items.push(self.node(parser, event, span)?);
        }
    }

    fn entries(&mut self, parser: &mut Events<'_>, of: Id) -> Result<Vec<(Id, Id)>, BadYaml> {
        let mut entries: Vec<(Id, Id)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = expected(parser)?;
            if event == Event::MappingEnd {
                self.nodes[of].end = span.end.byte_offset().unwrap_or_default();
                return Ok(entries);
            }
            let line = (span.start.line(), span.start.col() + 1);
            let key = self.node(parser, event, span)?;
            let bad = |text: String| BadYaml {
                line: line.0,
                column: line.1,
                text,
            };
            match &self.nodes[key].what {
                What::Scalar { text, .. } if !seen.insert(text.clone()) => {
                    return Err(bad(format!("key {text:?} stands twice in one mapping")));
                }
                What::Scalar { .. } => {}
                _ => return Err(bad("a key must be a word".to_owned())),
            }
            let (event, span) = expected(parser)?;
            let value = self.node(parser, event, span)?;
            entries.push((key, value));
        }
    }
}

impl Document {
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// What an alias stands for; anything else is itself.
    pub(super) fn followed(&self, id: Id) -> Id {
        match self.nodes[id].what {
            // An anchor may be used within what it names; then it stands for nothing.
            What::Alias(target) if !matches!(self.nodes[target].what, What::Alias(_)) => target,
            _ => id,
        }
    }

    /// The text of a scalar.
    pub(super) fn word(&self, id: Id) -> Option<&str> {
        match &self.nodes[self.followed(id)].what {
            What::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entry of a mapping: its key and its value.
    pub(super) fn entry(&self, id: Id, name: &str) -> Option<(Id, Id)> {
        let What::Mapping { entries, .. } = &self.nodes[self.followed(id)].what else {
            return None;
        };
        let mut entries = entries.iter();
        let found = entries.find(|(key, _)| self.word(*key) == Some(name));
        found.copied()
    }

    /// The item of a sequence.
    pub(super) fn item(&self, id: Id, at: usize) -> Option<Id> {
        match &self.nodes[self.followed(id)].what {
            What::Sequence { items, .. } => items.get(at).copied(),
            _ => None,
        }
    }

    /// Where the document begins, from 1.
    #[must_use]
    pub(crate) fn line(&self) -> usize {
        self.nodes[self.root].line
    }

    /// The line of a field such as `spec.backends[1].service` below an object: of its key,
    /// or of the innermost part of its path that is written.
    #[must_use]
    pub(crate) fn line_of(&self, object: &[Step], field: &str) -> usize {
        let steps = object.iter().cloned().chain(steps(field));
        let (mut at, mut line) = (self.root, self.nodes[self.root].line);
        for step in steps {
            let next = match &step {
                Step::Key(name) => self.entry(at, name),
                Step::Item(number) => self.item(at, *number).map(|item| (item, item)),
            };
            let Some((key, value)) = next else { break };
            line = self.nodes[key].line;
            at = value;
        }
        line
    }

    /// The document as JSON.
    ///
    /// # Errors
    /// Where aliases make more of it than is read.
    pub(crate) fn value(&self) -> Result<Value, BadYaml> {
        let mut left = MOST_NODES;
        self.value_of(self.root, &mut left, 0)
    }

    fn value_of(&self, id: Id, left: &mut usize, depth: usize) -> Result<Value, BadYaml> {
        let node = &self.nodes[id];
        let bad = |text: &str| BadYaml {
            line: node.line,
            column: node.column + 1,
            text: text.to_owned(),
        };
        *left = left
            .checked_sub(1)
            .ok_or_else(|| bad("aliases make this document too large"))?;
        // What is written is bounded already; aliases go deeper, one within itself for ever.
        if depth > 2 * DEEPEST {
            return Err(bad(
                "aliases nest too deeply here, or one stands within itself",
            ));
        }
        Ok(match &node.what {
            What::Alias(target) if *target == id => return Err(bad("an alias names itself")),
            What::Alias(target) => self.value_of(*target, left, depth + 1)?,
            What::Scalar {
                text,
                style: ScalarStyle::Plain,
                string: false,
            } => scalar::plain(text),
            What::Scalar { text, .. } => text.clone().into(),
            What::Sequence { items, .. } => items
                .iter()
                .map(|item| self.value_of(*item, left, depth + 1))
                .collect::<Result<_, _>>()?,
            What::Mapping { entries, .. } => {
                let mut fields = Map::new();
                let mut merged = Map::new();
                for (key, value) in entries {
                    let name = self.word(*key).unwrap_or_default();
                    let value = self.value_of(*value, left, depth + 1)?;
                    if name == "<<" {
                        merge(&mut merged, value);
                    } else {
                        fields.insert(name.to_owned(), value);
                    }
                }
                for (name, value) in merged {
                    fields.entry(name).or_insert(value);
                }
                Value::Object(fields)
            }
        })
    }
}

/// `<<`: a mapping, or a list of them of which the first wins.
fn merge(into: &mut Map<String, Value>, value: Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                into.entry(name).or_insert(value);
            }
        }
        Value::Array(items) => {
            for item in items {
                merge(into, item);
            }
        }
        _ => {}
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To a member.
    Key(String),
    /// To an item.
    Item(usize),
}

/// The steps of a field such as `spec.backends[1].service`. A name with dots in it stands
/// in brackets: `metadata.labels[weft.dev/inject]`.
fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').unwrap_or(inner.len());
            let name = &inner[..end];
            steps.push(match name.parse() {
                Ok(number) => Step::Item(number),
                Err(_) => Step::Key(name.trim_matches('"').to_owned()),
            });
            rest = inner.get(end + 1..).unwrap_or_default();
        } else {
            let bare = rest.strip_prefix('.').unwrap_or(rest);
            let end = bare.find(['.', '[']).unwrap_or(bare.len());
            if end > 0 {
                steps.push(Step::Key(bare[..end].to_owned()));
            }
            rest = &bare[end..];
        }
    }
    steps
}

#[cfg(test)]
mod tests;
