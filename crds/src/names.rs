//! The table of all labels and annotations of Weft: which author writes each, and on which objects
//! it has an effect.
//!
//! Kubernetes takes any name on any object. One that is misspelt, or on an object where it has no
//! effect, does nothing, and a namespace that was meant to be closed stays as it was. So it is
//! reported, for files, for webhooks and for stored objects alike. It is never more than a
//! warning: an object must not depend on which version knows which names.
//!
//! Messages name the first of many names, and count the others.
//!
//! Values are validated by their readers, and requests for injection, values and all, by
//! [`unheard`](crate::inject::unheard).

use std::iter;

use serde_json::Value;

use crate::inject::SPELLED;
use crate::labels::{self, PREFIX};
use crate::near::hint;
use crate::smi::{ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP};
use crate::weft;

/// Names of one object that are shown.
const MOST_SHOWN: usize = 5;
/// Characters of a name or a kind that are shown; the API server takes no name of ours that is
/// longer than 72.
const LONGEST: usize = 80;

/// Which map of an object's metadata a name stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `annotations`.
    Annotations,
    /// `labels`.
    Labels,
}

impl Place {
    const ALL: [Self; 2] = [Self::Annotations, Self::Labels];

    fn field(self) -> &'static str {
        match self {
            Self::Annotations => "annotations",
            Self::Labels => "labels",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Annotations => "annotation",
            Self::Labels => "label",
        }
    }

    fn one(self) -> &'static str {
        match self {
            Self::Annotations => "an annotation",
            Self::Labels => "a label",
        }
    }
}

/// The author of a name.
#[derive(Clone, Copy, Debug)]
enum Author {
    /// Users. It acts on objects of these kinds, and on no other.
    User(&'static [&'static str]),
    /// Weft. A user that copies an object copies it too, and requests nothing by it.
    Weft,
}

/// One of our names.
#[derive(Clone, Copy, Debug)]
struct OwnName {
    name: &'static str,
    place: Place,
    author: Author,
}

/// Settings of pods, for one or for all of a namespace.
const PODS: &[&str] = &["Namespace", "Pod"];

/// An annotation that users write on objects of these kinds.
const fn asked(name: &'static str, on: &'static [&'static str]) -> OwnName {
    OwnName {
        name,
        place: Place::Annotations,
        author: Author::User(on),
    }
}

/// What Weft writes itself.
const fn written(name: &'static str, place: Place) -> OwnName {
    OwnName {
        name,
        place,
        author: Author::Weft,
    }
}

/// All of them.
const ALL: &[OwnName] = &[
    OwnName {
        place: Place::Labels,
        ..asked(labels::INJECT, PODS)
    },
    asked(labels::ACCESS, PODS),
    asked(labels::EGRESS, PODS),
    asked(labels::MTLS, PODS),
    asked(labels::PERMISSIVE_PORTS, PODS),
    asked(labels::OPAQUE_PORTS, &["Namespace", "Pod", "Service"]),
    asked(labels::ROUTES, &["Service"]),
    asked(labels::SKIP_INBOUND_PORTS, PODS),
    asked(labels::SKIP_OUTBOUND_PORTS, PODS),
    asked(labels::SKIP_OUTBOUND_CIDRS, PODS),
    asked(labels::PROXY_CPU_REQUEST, PODS),
    asked(labels::PROXY_CPU_LIMIT, PODS),
    asked(labels::PROXY_MEMORY_REQUEST, PODS),
    asked(labels::PROXY_MEMORY_LIMIT, PODS),
    asked(labels::PROXY_GUARANTEED, PODS),
    asked(labels::LOG_LEVEL, PODS),
    asked(labels::ACCESS_LOG, PODS),
    asked(labels::TRACE_SAMPLING, PODS),
    asked(labels::DRAIN_DELAY, PODS),
    asked(labels::COMMAND, &["CanaryRelease", "FaultExperiment"]),
    asked(labels::FAULTS, &["Namespace"]),
    written(labels::ACCOUNT, Place::Labels),
    written(labels::PROXY_VERSION, Place::Annotations),
    written(labels::SMI_LOSSLESS, Place::Annotations),
    written(labels::INSTALL, Place::Annotations),
    written(labels::TRUST_DOMAIN, Place::Annotations),
];

/// A name under our prefix that has no effect where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Unread<'a> {
    /// As it was written.
    pub name: &'a str,
    /// The map that it stands in.
    pub place: Place,
    /// Path of the metadata in the object.
    metadata: &'static str,
    why: Why<'a>,
}

/// Why a name has no effect.
#[derive(Clone, Copy, Debug)]
enum Why<'a> {
    /// There is none like it.
    Unknown,
    /// It belongs into this other map.
    Misplaced(Place),
    /// It acts on other kinds than this.
    OtherKind {
        kind: &'a str,
        place: Place,
        on: &'static [&'static str],
        /// Path of the metadata of the pods that the object makes, if it acts there.
        template: Option<&'static str>,
    },
}

/// A warning about a name that has no effect where it stands, or about those of an object that
/// are only counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Path of the name, or of the metadata.
    pub field: String,
    /// What is wrong, and the way out.
    pub text: String,
    /// The way out alone, empty where none is known: what other objects with the same field
    /// have in common with this one, whatever their kinds are. `None` of what is counted, which
    /// is about one object.
    pub way_out: Option<String>,
}

impl Unread<'_> {
    /// What is wrong, and the way out; a clause that follows the name or its field.
    #[must_use]
    pub fn text(&self) -> String {
        let (wrong, way_out) = self.clauses();
        format!("{wrong}{way_out}")
    }

    fn warning(&self) -> Warning {
        let (wrong, way_out) = self.clauses();
        Warning {
            field: self.field(),
            text: format!("{wrong}{way_out}"),
            way_out: Some(way_out),
        }
    }

    /// What is wrong, and the way out with the sign that parts the two.
    fn clauses(&self) -> (String, String) {
        match self.why {
            Why::Unknown => {
                let known = ALL.iter();
                let asked = known.filter(|known| matches!(known.author, Author::User(_)));
                let wrong = format!("is no {} of Weft", self.place.word());
                (wrong, hint(self.name, asked.map(|known| known.name)))
            }
            Why::Misplaced(place) => (
                format!("is not read: it is {}", place.one()),
                format!("; write it under {}.{}", self.metadata, place.field()),
            ),
            Why::OtherKind {
                kind,
                place,
                on,
                template,
            } => {
                let there = template.map_or_else(String::new, |metadata| {
                    format!("; write it under {metadata}.{}", place.field())
                });
                (
                    format!("is not read on kind {}", short(kind)),
                    format!("; it is {} of {}{there}", place.one(), on.join(" and ")),
                )
            }
        }
    }

    fn field(&self) -> String {
        format!(
            "{}.{}[{}]",
            self.metadata,
            self.place.field(),
            short(self.name)
        )
    }
}

/// The names under our prefix that have no effect in an object: in its own metadata, and in
/// those of the pods that it makes.
pub fn unread<'a>(
    group: &'a str,
    kind: &'a str,
    object: &'a Value,
) -> impl Iterator<Item = Unread<'a>> {
    let is_known = is_known(group);
    let template = template(kind, object);
    let own = Part {
        path: "metadata",
        metadata: &object["metadata"],
        reads: is_known.then_some(kind),
        object: kind,
        template,
    };
    let of_pods = template.map(|(path, metadata)| Part {
        path,
        metadata,
        reads: is_known.then_some("Pod"),
        object: kind,
        template: None,
    });
    let parts = iter::once(own).chain(of_pods);
    parts.flat_map(|part| {
        let places = Place::ALL.into_iter();
        places.flat_map(move |place| part.unread(place))
    })
}

/// The first few of [`unread`] as warnings, each with its field, and how many more there are.
#[must_use]
pub fn warnings(group: &str, kind: &str, object: &Value) -> Vec<Warning> {
    let mut unread = unread(group, kind, object);
    let first = unread.by_ref().take(MOST_SHOWN);
    let mut warnings: Vec<Warning> = first.map(|one| one.warning()).collect();
    let more = unread.count();
    if more > 0 {
        warnings.push(Warning {
            field: "metadata".to_owned(),
            text: format!("has {more} more labels and annotations that Weft does not read"),
            way_out: None,
        });
    }
    warnings
}

/// Metadata with names in them.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// Where they stand in the object.
    path: &'static str,
    metadata: &'a Value,
    /// The kind that they are read of; `None` where a product that we do not know may pass names
    /// on to where they act.
    reads: Option<&'a str>,
    /// Kind of the whole object.
    object: &'a str,
    /// Metadata of the pods that the object makes, with their path.
    template: Option<(&'static str, &'a Value)>,
}

impl<'a> Part<'a> {
    fn unread(self, place: Place) -> impl Iterator<Item = Unread<'a>> {
        let map = self.metadata.get(place.field()).and_then(Value::as_object);
        let names = map.into_iter().flatten().map(|(name, _)| name.as_str());
        let ours = names.filter(|name| name.starts_with(PREFIX));
        ours.filter_map(move |name| {
            Some(Unread {
                name,
                place,
                metadata: self.path,
                why: self.without_effect(place, name)?,
            })
        })
    }

    /// Why this name has no effect, if that is so.
    fn without_effect(&self, place: Place, name: &str) -> Option<Why<'a>> {
        let Some(known) = ALL.iter().find(|known| known.name == name) else {
            return Some(Why::Unknown);
        };
        let (Author::User(on), Some(kind)) = (known.author, self.reads) else {
            return None;
        };
        if name == labels::INJECT && SPELLED.contains(&self.object) {
            return None;
        }
        if !on.contains(&kind) {
            // A name that stands there as well has an effect.
            let of_pods = self.template.filter(|_| on.contains(&"Pod"));
            let is_heard = of_pods.is_some_and(|(_, metadata)| has(metadata, known));
            return (!is_heard).then_some(Why::OtherKind {
                kind,
                place: known.place,
                on,
                template: of_pods.map(|(path, _)| path),
            });
        }
        let is_heard = known.place == place || has(self.metadata, known);
        (!is_heard).then_some(Why::Misplaced(known.place))
    }
}

/// Whether a name stands in these metadata where it belongs.
fn has(metadata: &Value, known: &OwnName) -> bool {
    let map = metadata.get(known.place.field());
    map.is_some_and(|map| map.get(known.name).is_some())
}

/// Whether the kinds of a group are Kubernetes' own, SMI's or ours: then it is known that none
/// of them passes names on, but to the pods of a template.
fn is_known(group: &str) -> bool {
    let named = [ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP, weft::GROUP];
    !group.contains('.') || group.ends_with(".k8s.io") || named.contains(&group)
}

/// Metadata of the pods that an object makes, with their path.
fn template<'a>(kind: &str, object: &'a Value) -> Option<(&'static str, &'a Value)> {
    let path = match kind {
        "CronJob" => "spec.jobTemplate.spec.template.metadata",
        "PodTemplate" => "template.metadata",
        _ => "spec.template.metadata",
    };
    let mut above = path.strip_suffix(".metadata")?.split('.');
    let template = above.try_fold(object, |value, key| value.get(key))?;
    template.is_object().then(|| (path, &template["metadata"]))
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Names that a sentence holds; it only counts what is beyond.
const NAMED: usize = 4;

/// The first of so many names: `a`, `a and b`, or `a, b, c, d and 3 more`.
#[must_use]
pub fn few(names: impl IntoIterator<Item = impl AsRef<str>>, of: usize) -> String {
    let names = names.into_iter().take(NAMED);
    let shown: Vec<String> = names.map(|name| name.as_ref().to_owned()).collect();
    match (of.saturating_sub(shown.len()), shown.as_slice()) {
        (0, [before @ .., last]) if !before.is_empty() => {
            format!("{} and {last}", before.join(", "))
        }
        (0, _) => shown.join(", "),
        (more, _) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
