//! Validates an IdentityBinding. One that selects no workload, or one that cannot exist, would
//! silently remove a source from every target that refers to it.

use std::{collections::BTreeMap, sync::Arc};

use policy::name::{BadSpiffeId, SpiffeId};
use serde_json::Value;

use super::{Mistake, Mistakes, Validate, ValidationContext, shape};
use crate::label_syntax::is_dns_subdomain;
use crate::smi::IdentityBindingSpec;

/// What an id may be written without: examples of the specification leave it out.
const SCHEME: &str = "spiffe://";
/// Most labels, as in the schema.
const MOST_LABELS: usize = 32;

/// The workloads that an IdentityBinding means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// Whether it may allow something. The workloads that it names are protected either way.
    pub usable: bool,
    /// Labels that pods must have, all of them; without any entry, no pod has them. `None`
    /// if it does not require labels.
    pub labels: Option<BTreeMap<Arc<str>, Arc<str>>>,
    /// Ids, by place.
    pub ids: Vec<BindingId>,
    /// A service account of the binding's namespace.
    pub service_account: Option<Arc<str>>,
}

/// A SPIFFE id as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingId {
    /// In the words of the object.
    pub written: Arc<str>,
    /// Which id it is; `None` if it is none, and matches no caller.
    pub id: Option<SpiffeId>,
}

impl Validate for IdentityBindingSpec {
    type Validated = Binding;

    const UNREADABLE: &'static str = "the binding stands for no caller";

    fn validate(&self, _: &ValidationContext<'_>) -> (Binding, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let schemes = &self.schemes;
        let labels = schemes.pod_label_selector.as_ref();
        let labels = labels.map(|selector| &selector.match_labels);
        let account = schemes.service_account.as_deref();
        let written = schemes.spiffe_identities.as_deref();
        let nothing = labels.is_none() && account.is_none() && written.is_none();
        let both = labels.is_some() && account.is_some();
        if nothing {
            let text = "must hold podLabelSelector, serviceAccount or spiffeIdentities; it stands \
                        for no caller";
            mistakes.invalid("spec.schemes", text);
        }
        if both {
            let text = "and podLabelSelector exclude each other; it stands for no caller: make \
                        two IdentityBindings";
            mistakes.invalid("spec.schemes.serviceAccount", text);
        }
        if labels.is_some_and(BTreeMap::is_empty) {
            let text = "must name at least one label; without one it would mean every pod, and \
                        stands for none";
            mistakes.invalid("spec.schemes.podLabelSelector.matchLabels", text);
        }
        if account.is_some_and(|account| !is_dns_subdomain(account)) {
            let text = "must be the name of a service account of this namespace; it is ignored";
            mistakes.invalid("spec.schemes.serviceAccount", text);
        }
        let binding = Binding {
            usable: !nothing && !both,
            labels: labels.map(|labels| {
                let labels = labels.iter();
                labels
                    .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                    .collect()
            }),
            ids: ids(written, &mut mistakes),
            service_account: account.filter(|name| is_dns_subdomain(name)).map(Arc::from),
        };
        (binding, mistakes.0)
    }

    fn unreadable(written: &Value, _: &ValidationContext<'_>) -> Binding {
        let schemes = &written["schemes"];
        let labels = schemes.pointer("/podLabelSelector/matchLabels");
        let labels = labels.and_then(Value::as_object).map(|labels| {
            let text = |(name, value): (&String, &Value)| {
                Some((name.as_str().into(), value.as_str()?.into()))
            };
            labels.iter().filter_map(text).collect()
        });
        let account = schemes.get("serviceAccount").and_then(Value::as_str);
        Binding {
            labels,
            service_account: account.filter(|name| is_dns_subdomain(name)).map(Arc::from),
            ..Binding::default()
        }
    }

    fn misshapen(written: &Value, mistakes: &mut Mistakes) {
        let labels = written.pointer("/schemes/podLabelSelector/matchLabels");
        let labels = labels.and_then(Value::as_object);
        let found = labels.map_or(0, serde_json::Map::len);
        let field = "spec.schemes.podLabelSelector.matchLabels";
        shape::check_count(field, found, MOST_LABELS, mistakes);
    }
}

fn ids(written: Option<&[String]>, mistakes: &mut Mistakes) -> Vec<BindingId> {
    const FIELD: &str = "spec.schemes.spiffeIdentities";
    if written.is_some_and(<[_]>::is_empty) {
        let text = "must name at least one SPIFFE id, or be left out; it stands for no caller";
        mistakes.invalid(FIELD, text);
    }
    let ids = written.into_iter().flatten().enumerate();
    let ids = ids.map(|(i, written)| {
        let id = parse(written).map_err(|error| {
            let text = format!("is {written:?}, which is no SPIFFE id: {error}; it is ignored");
            mistakes.invalid(format!("{FIELD}[{i}]"), text);
        });
        BindingId {
            written: written.as_str().into(),
            id: id.ok(),
        }
    });
    ids.collect()
}

/// A SPIFFE id with or without its scheme.
fn parse(written: &str) -> Result<SpiffeId, BadSpiffeId> {
    if written.starts_with(SCHEME) {
        SpiffeId::try_from(written)
    } else {
        SpiffeId::try_from(format!("{SCHEME}{written}").as_str())
    }
}
