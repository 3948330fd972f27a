//! A finding in a text: one thing that is wrong, with its place.

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of the field, from 1.
    pub line: usize,
    /// Whether the object would be refused; else it is a warning.
    pub refused: bool,
    /// Kind, namespace and name; of a document that cannot be read its number.
    pub object: String,
    /// Path of the field: as it was written if only the API server reports it, else in the version
    /// that is stored; empty for the complete object.
    pub field: String,
    /// What is wrong, and the way out.
    pub text: String,
    /// Set for a warning about a name of ours, which all objects of a chart may have: the key of
    /// those that one line covers. Objects that create pods have another way out than the rest.
    pub group: Option<String>,
}

/// A validated text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Objects of SMI and of Weft in it.
    pub objects: usize,
    /// Documents that could not be read; each has a finding.
    pub unreadable: usize,
    /// In the order of the text.
    pub findings: Vec<Finding>,
}
