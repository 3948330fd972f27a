//! Pods as a NetworkPolicy selects them: by namespace, account and account label.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use crds::labels::{ACCOUNT, account_hash};
use model::world::{ObjectKey, PodFacts, World};

/// A pod that has not ended.
pub(super) type Pod<'a> = (&'a ObjectKey, &'a PodFacts);

/// An index of the pods that have not ended.
pub(super) struct Pods<'a> {
    by_account: BTreeMap<ObjectKey, Vec<Pod<'a>>>,
    /// By namespace and value of the account label, true or not.
    by_label: BTreeMap<(Arc<str>, Arc<str>), Vec<Pod<'a>>>,
    /// Filled at the first use: targets name the same accounts over and over, and accounts that do
    /// not exist.
    hashes: RefCell<BTreeMap<ObjectKey, Arc<str>>>,
}

impl<'a> Pods<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let mut by_account: BTreeMap<ObjectKey, Vec<Pod<'a>>> = BTreeMap::new();
        let mut by_label: BTreeMap<_, Vec<Pod<'a>>> = BTreeMap::new();
        for (key, facts) in world.pods.iter().filter(|(_, facts)| !facts.ended) {
            let pod = (key, facts.as_ref());
            by_account.entry(account_of(pod)).or_default().push(pod);
            if let Some(label) = facts.labels.get(ACCOUNT) {
                let at = (key.namespace.clone(), label.clone());
                by_label.entry(at).or_default().push(pod);
            }
        }
        Self {
            by_account,
            by_label,
            hashes: RefCell::default(),
        }
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_account.keys()
    }

    /// Pods that run as the account, whatever their labels.
    pub(super) fn of(&self, account: &ObjectKey) -> &[Pod<'a>] {
        self.by_account.get(account).map_or(&[], Vec::as_slice)
    }

    /// Pods of the namespace.
    pub(super) fn within(&self, namespace: &str) -> impl Iterator<Item = Pod<'a>> {
        let first = ObjectKey::new(namespace, "");
        let accounts = self.by_account.range(first..);
        accounts
            .take_while(move |(account, _)| *account.namespace == *namespace)
            .flat_map(|(_, pods)| pods.iter().copied())
    }

    /// Pods that a policy for the account selects: those that carry its label.
    pub(super) fn labelled(&self, account: &ObjectKey) -> &[Pod<'a>] {
        let at = (account.namespace.clone(), self.hash(account));
        self.by_label.get(&at).map_or(&[], Vec::as_slice)
    }

    /// Pods with a proxy that run as the account and do not carry its label, because
    /// they are older than it.
    pub(super) fn unlabelled(&self, account: &ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        let right = self.hash(account);
        self.of(account)
            .iter()
            .filter(move |(_, facts)| {
                facts.proxy.is_some() && facts.labels.get(ACCOUNT) != Some(&right)
            })
            .map(|(key, _)| *key)
    }

    /// A pod that carries the account's label and runs as another one. The webhook
    /// lets none in, so it must be older.
    pub(super) fn pretender(&self, account: &ObjectKey) -> Option<&'a ObjectKey> {
        let false_one = |(key, facts): &&Pod<'a>| {
            key.namespace != account.namespace || facts.service_account != account.name
        };
        let found = self.labelled(account).iter().find(false_one);
        found.map(|(key, _)| *key)
    }

    pub(super) fn hash(&self, account: &ObjectKey) -> Arc<str> {
        if let Some(known) = self.hashes.borrow().get(account) {
            return known.clone();
        }
        let new: Arc<str> = account_hash(&account.namespace, &account.name).into();
        let mut hashes = self.hashes.borrow_mut();
        hashes.insert(account.clone(), new.clone());
        new
    }
}

/// The account that a pod runs as.
pub(super) fn account_of((key, facts): Pod<'_>) -> ObjectKey {
    ObjectKey {
        namespace: key.namespace.clone(),
        name: facts.service_account.clone(),
    }
}
