//! What the proxies have counted since the demo began to look.
//!
//! Counters live as long as a proxy does, and proxies come and go: a restarted one
//! begins a new account, and one that is gone keeps what was last read of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::metrics::Samples;

/// A pod's proxy until its next restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    pub pod: String,
    pub restarts: u64,
}

#[derive(Clone, Debug)]
struct Account {
    service: String,
    base: Samples,
    now: Samples,
}

impl Account {
    /// Since its base.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // A series that was idle for long is forgotten by its proxy.
        let more = self.now.sum(name, labels) - self.base.sum(name, labels);
        more.max(0.0)
    }
}

/// All accounts. Bounded by the pods that one demo sees.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<Proxy, Account>,
}

impl Ledger {
    /// Takes what was read of a proxy. Of one that was not known, everything counts.
    pub fn note(&mut self, proxy: Proxy, service: &str, now: Samples) {
        let account = self.accounts.entry(proxy).or_insert_with(|| Account {
            service: service.into(),
            base: Samples::default(),
            now: Samples::default(),
        });
        account.now = now;
    }

    /// From here on only what comes next counts.
    pub fn rebase(&mut self) {
        for account in self.accounts.values_mut() {
            account.base = account.now.clone();
        }
    }

    /// What the proxies of `service` have counted under `name` with these labels.
    pub fn sum(&self, service: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(service)
            .map(|account| account.sum(name, labels))
            .sum()
    }

    /// The same of the proxy of one pod.
    pub fn sum_of_pod(&self, pod: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        let accounts = self.accounts.iter().filter(|(proxy, _)| proxy.pod == pod);
        accounts.map(|(_, account)| account.sum(name, labels)).sum()
    }

    /// Every value of `label` that occurs.
    pub fn values<'a>(&'a self, service: &str, name: &str, label: &str) -> BTreeSet<&'a str> {
        self.of(service)
            .flat_map(|account| account.now.values(name, label))
            .collect()
    }

    fn of<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a Account> {
        self.accounts
            .values()
            .filter(move |account| account.service == service)
    }
}
