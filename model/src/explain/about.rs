//! Merges explanation lines that are equal for several endpoints, and names the endpoints where a
//! line is not true of all.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::few;
use crds::observe::Step;

use super::evaluate::EvaluatedEndpoint;
use super::outcome::{BackendOutcome, step};

/// Names of endpoints, by the backend that they belong to.
type Endpoints<'a> = BTreeMap<&'a str, BTreeSet<String>>;

/// What is said of the endpoints of some backends.
#[derive(Debug)]
pub(super) struct About<'a> {
    /// All that could be meant.
    all: Endpoints<'a>,
    /// By text: those that are, and the objects that make it so.
    lines: BTreeMap<String, (Endpoints<'a>, BTreeSet<String>)>,
}

impl<'a> About<'a> {
    /// Of these backends nothing yet.
    pub(super) fn of(outcomes: &'a [BackendOutcome<'_>]) -> Self {
        let mut all = Endpoints::new();
        for outcome in outcomes {
            let backend = all.entry(&outcome.backend_route.label).or_default();
            backend.extend(outcome.evaluated.iter().map(EvaluatedEndpoint::name));
        }
        Self {
            all,
            lines: BTreeMap::new(),
        }
    }

    /// Says it of one endpoint of a backend.
    pub(super) fn say(
        &mut self,
        (outcome, one): (&'a BackendOutcome<'_>, &EvaluatedEndpoint),
        text: String,
        by: impl IntoIterator<Item = String>,
    ) {
        let (endpoints, objects) = self.lines.entry(text).or_default();
        let backend = endpoints.entry(&outcome.backend_route.label).or_default();
        backend.insert(one.name());
        objects.extend(by);
    }

    /// The lines. One begins with the backends that it is about, where there are several, or
    /// with the pods, where it is not about all of a backend.
    pub(super) fn steps(self, name: &str) -> Vec<Step> {
        let Self { all, lines } = self;
        let lines = lines.into_iter().map(|(text, (endpoints, objects))| {
            let whom = whom(&all, &endpoints);
            let text = if whom.is_empty() {
                text
            } else {
                format!("{}: {text}", few(&whom, whom.len()))
            };
            step(name, text, objects.into_iter().collect())
        });
        lines.collect()
    }
}

fn whom(all: &Endpoints<'_>, endpoints: &Endpoints<'_>) -> BTreeSet<String> {
    let mut whom = BTreeSet::new();
    for (backend, pods) in endpoints {
        if all.get(backend) != Some(pods) {
            whom.extend(pods.iter().cloned());
        } else if all.len() > 1 {
            whom.insert((*backend).to_owned());
        }
    }
    whom
}
