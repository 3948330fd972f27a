//! The ExternalServices in force: which pods each admits, and which Services stand for the host of
//! one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::{
    egress::{ExternalCaller, ExternalObject, ExternalPort},
    name::ObjectRef,
};

use crate::world::ObjectKey;

/// All that are in force.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Externals {
    /// In order of precedence between equals.
    pub(crate) entries: Vec<ExternalEntry>,
    /// Places of those that admit accounts of a namespace, in that order and no more than a proxy
    /// may hold.
    pub(crate) by_namespace: BTreeMap<Arc<str>, Vec<usize>>,
    /// Places of those whose calls leave by a Gateway, in that order and no more than its proxies
    /// may hold.
    pub(crate) by_gateway: BTreeMap<ObjectKey, Vec<usize>>,
    /// Places by the Service that stands for it, which has its name.
    pub(crate) services: BTreeMap<ObjectKey, usize>,
}

/// One that is in force.
#[derive(Debug, PartialEq)]
pub(crate) struct ExternalEntry {
    pub(crate) origin: (ObjectRef, i64),
    /// Without resolved addresses.
    pub(crate) object: ExternalObject,
    pub(crate) callers: Callers,
    /// The Gateway by which calls leave, whether or not there is one of this name.
    pub(crate) gateway: Option<ObjectKey>,
    /// That is served, where it is named: else it has no pods, whatever Services there are.
    pub(crate) has_gateway: bool,
}

impl ExternalEntry {
    /// Whether calls by a host go to endpoints at this port from proxies of a Gateway, or from those
    /// of the callers.
    pub(crate) fn dials(&self, gateway: Option<&ObjectKey>, host: &str, port: u16) -> bool {
        let is_own = match (&self.gateway, gateway) {
            (Some(named), Some(gateway)) => named == gateway,
            (named, _) => named.is_none(),
        };
        is_own && self.object.gives_endpoints(host, port)
    }
}

/// The callers that an object admits.
#[derive(Debug, PartialEq)]
pub(crate) enum Callers {
    /// All of this namespace.
    Namespace(Arc<str>),
    /// Those of these accounts, by namespace and name.
    Accounts(BTreeSet<ObjectKey>),
}

impl Callers {
    fn admit(&self, namespace: &str, account: &str) -> bool {
        match self {
            Self::Namespace(own) => **own == *namespace,
            Self::Accounts(accounts) => {
                let mut accounts = accounts.iter();
                accounts.any(|one| *one.namespace == *namespace && *one.name == *account)
            }
        }
    }

    /// As Gateways know them.
    pub(crate) fn of_gateway(&self) -> Vec<ExternalCaller> {
        match self {
            Self::Namespace(namespace) => vec![ExternalCaller {
                namespace: namespace.clone(),
                account: None,
            }],
            Self::Accounts(accounts) => {
                let accounts = accounts.iter();
                let callers = accounts.map(|one| ExternalCaller {
                    namespace: one.namespace.clone(),
                    account: Some(one.name.clone()),
                });
                callers.collect()
            }
        }
    }

    /// The namespaces of which it admits some.
    pub(crate) fn namespaces(&self) -> BTreeSet<&Arc<str>> {
        match self {
            Self::Namespace(namespace) => BTreeSet::from([namespace]),
            Self::Accounts(accounts) => accounts.iter().map(|one| &one.namespace).collect(),
        }
    }
}

impl Externals {
    /// Those that admit an account, in order of precedence.
    pub(crate) fn of<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
    ) -> impl Iterator<Item = &'a ExternalEntry> {
        let places = self.by_namespace.get(namespace).into_iter().flatten();
        let entries = places.filter_map(move |at| self.entries.get(*at));
        entries.filter(move |entry| entry.callers.admit(namespace, account))
    }

    /// Those whose calls leave by a Gateway, in order of precedence.
    pub(crate) fn of_gateway<'a>(
        &'a self,
        gateway: &ObjectKey,
    ) -> impl Iterator<Item = &'a ExternalEntry> + use<'a> {
        let places = self.by_gateway.get(gateway).into_iter().flatten();
        places.filter_map(move |at| self.entries.get(*at))
    }

    /// Whether the two give a Gateway the same.
    pub(crate) fn same_for_gateway(&self, other: &Self, gateway: &ObjectKey) -> bool {
        self.of_gateway(gateway).eq(other.of_gateway(gateway))
    }

    /// Whether the two give an account the same.
    pub(crate) fn same_for(&self, other: &Self, namespace: &str, account: &str) -> bool {
        self.of(namespace, account).eq(other.of(namespace, account))
    }

    /// The object that a port of a Service stands for.
    pub(crate) fn of_service(
        &self,
        service: &ObjectKey,
        port: u16,
    ) -> Option<(&ExternalEntry, &ExternalPort)> {
        let entry = self.entries.get(*self.services.get(service)?)?;
        let mut ports = entry.object.ports.iter();
        Some((entry, ports.find(|own| own.port == port)?))
    }

    /// The object that a Service stands for.
    pub(crate) fn behind(&self, service: &ObjectKey) -> Option<&ExternalEntry> {
        self.entries.get(*self.services.get(service)?)
    }
}

/// An object of this entry as the Gateway has it by which its calls leave: it dials itself.
pub(crate) fn let_out(entry: &ExternalEntry, object: ExternalObject) -> ExternalObject {
    ExternalObject {
        gateway: None,
        callers: entry.callers.of_gateway(),
        ..object
    }
}
