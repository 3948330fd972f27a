//! Reports service accounts that objects name and that do not exist.
//!
//! No caller has a missing account and no pod runs as one, so a misspelt name looks like a right
//! one until a call is refused or passes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::near;
use crds::smi::validation::{DestinationKind, Source, SourceKind};
use crds::weft::validation::RevocationSubject;
use policy::name::SpiffeId;

use super::findings::About;
use crate::{
    problem::Reason,
    world::{ObjectKey, World},
};

/// Reports of an object of namespace `own` that it names an account which is not there.
pub(super) fn must_exist(
    world: &World,
    about: &mut About<'_>,
    account: &ObjectKey,
    (field, own): (&str, &str),
) {
    if is_there(world, account) {
        return;
    }
    about.unresolved_with(Reason::NoSuchAccount, field, || {
        let mut hint = String::new();
        // What other namespaces hold is not revealed here.
        if *account.namespace == *own {
            let first = ObjectKey::new(own, "");
            let accounts = world.service_accounts.range(first..);
            let here = accounts.take_while(|(key, _)| *key.namespace == *own);
            hint = near::hint(&account.name, here.map(|(key, _)| &*key.name));
        }
        format!("there is no ServiceAccount {account}: create it, or correct the name{hint}")
    });
}

/// Every namespace has an account, so where none is known at all, nothing is known of any.
fn is_there(world: &World, account: &ObjectKey) -> bool {
    world.service_accounts.is_empty() || world.service_accounts.contains_key(account)
}

/// Whether two Worlds with the same objects of users have the same accounts.
pub(super) fn same(one: &World, other: &World) -> bool {
    Arc::ptr_eq(&one.service_accounts, &other.service_accounts)
        || named(one)
            .iter()
            .all(|account| is_there(one, account) == is_there(other, account))
}

/// The accounts that objects of users name.
fn named(world: &World) -> BTreeSet<ObjectKey> {
    let mut named = BTreeSet::new();
    for (key, target) in world.targets.iter() {
        let spec = &target.spec;
        named.extend(callers(&key.namespace, &spec.sources));
        let destination = spec.destination.iter();
        let accounts = destination.filter(|to| to.kind == DestinationKind::ServiceAccount);
        named.extend(accounts.map(|to| ObjectKey {
            namespace: key.namespace.clone(),
            name: to.name.clone(),
        }));
    }
    for (key, binding) in world.bindings.iter() {
        let own = binding.spec.service_account.as_deref();
        let ids = binding.spec.ids.iter().filter_map(|one| one.id.as_ref());
        let names = own
            .into_iter()
            .chain(ids.filter_map(SpiffeId::service_account));
        named.extend(names.map(|name| ObjectKey {
            namespace: key.namespace.clone(),
            name: name.into(),
        }));
    }
    for (key, policy) in world.policies.iter() {
        named.extend(callers(&key.namespace, &policy.spec.sources));
        for one in policy.spec.overrides.iter().flatten() {
            named.extend(callers(&key.namespace, &one.sources));
            named.extend(callers(&key.namespace, &one.forwarders));
        }
    }
    for revocation in world.revocations.values() {
        let subjects = revocation.spec.subjects.iter();
        named.extend(subjects.filter_map(|(_, subject)| match subject {
            RevocationSubject::ServiceAccount { namespace, name } => Some(ObjectKey {
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            _ => None,
        }));
    }
    named
}

/// Accounts among the sources of an object of namespace `own`.
fn callers(own: &Arc<str>, sources: &[Source]) -> impl Iterator<Item = ObjectKey> {
    let accounts = sources
        .iter()
        .filter(|source| source.kind == Some(SourceKind::ServiceAccount));
    accounts.map(move |source| ObjectKey {
        namespace: match &*source.namespace {
            "" => own.clone(),
            _ => source.namespace.clone(),
        },
        name: source.name.clone(),
    })
}
