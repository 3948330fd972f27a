//! Edits YAML in place: parses it with the position of every node, and changes only the bytes that
//! must change.
//!
//! Manifests are under version control and full of comments. So a change rewrites a few bytes and
//! not the text: comments, order, quotes, line ends and the other documents stay as they are.

pub(crate) mod change;
pub(crate) mod differ;
mod edit;
mod scalar;
pub(crate) mod tree;

use std::fmt;

/// Text that is not YAML, or not what a Kubernetes manifest may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadYaml {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for BadYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}
