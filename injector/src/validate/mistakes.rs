//! What is wrong with one object, in the order of its fields.

/// One mistake: the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) field: String,
    pub(super) reason: String,
}

/// Mistakes of one object, in the order of its fields.
#[derive(Debug, Default)]
pub(super) struct Mistakes(pub(super) Vec<Mistake>);

impl Mistakes {
    pub(super) fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Mistake {
            field: field.into(),
            reason: reason.into(),
        });
    }
}

/// Schemas bound lists too; this holds where another product's schema is in force.
pub(super) fn check_count(field: &str, found: usize, most: usize, mistakes: &mut Mistakes) {
    if found > most {
        mistakes.add(field, format!("has {found} entries, but may have {most}"));
    }
}

pub(super) fn check_port(field: String, port: i64, mistakes: &mut Mistakes) {
    if !(1..=65535).contains(&port) {
        mistakes.add(field, format!("is {port}, but a port is from 1 to 65535"));
    }
}
