//! Tracks which states of fleet breakers were sent to one proxy.
//!
//! A state is no resource. It is not acknowledged, and a proxy forgets it soon after its
//! controllers: their counts are lost with them.

use std::collections::{BTreeMap, BTreeSet};

use policy::traffic::part::Part;
use tokio::time::Instant;
use wire::v1;

use super::session::Session;
use crate::fleet::{AnnouncedState, AnnouncedStates, CIRCUITS, Key, closed};

/// See the module header.
#[derive(Debug)]
pub(super) struct AnnouncedBreakers {
    announced: BTreeMap<Key, AnnouncedState>,
    /// Of those, what is to be sent again.
    again: BTreeSet<Key>,
    /// There may be something to send.
    pub(super) due: bool,
}

impl AnnouncedBreakers {
    pub(super) const fn new() -> Self {
        Self {
            announced: BTreeMap::new(),
            again: BTreeSet::new(),
            due: true,
        }
    }

    /// A proxy that calls gets it again, in case that what it got found no place there. What that
    /// was stays known: it may end before there is room to send it.
    pub(super) fn note_breaker_report(&mut self, breaker_report: &v1::Pulse) {
        for sample in breaker_report.circuits.iter().take(CIRCUITS) {
            let key = sample.circuit.as_ref().and_then(Key::read);
            if let Some(key) = key.filter(|key| self.announced.contains_key(key)) {
                self.again.insert(key);
                self.due = true;
            }
        }
    }

    /// What the proxy does not know yet of the breakers of Services that it calls.
    pub(super) fn news(
        &mut self,
        all: &AnnouncedStates,
        session: &Session,
        account: &str,
        now: Instant,
    ) -> Vec<v1::CircuitState> {
        self.due = false;
        let again = std::mem::take(&mut self.again);
        if !session.capabilities().parts().has(Part::Breaker) {
            return Vec::new();
        }
        let mut news = Vec::new();
        self.announced.retain(|key, _| {
            let stays = all
                .get(key)
                .is_some_and(|announced| announced.is_for(account));
            if !stays {
                news.push(closed(key));
            }
            stays
        });
        for (key, state) in all
            .iter()
            .filter(|(_, announced)| announced.is_for(account))
        {
            let service = &key.service;
            let policy = wire::names::policy(&service.namespace, &service.name, key.port);
            let is_known = self.announced.get(key) == Some(state) && !again.contains(key);
            if !is_known && session.was_sent(&policy) {
                self.announced.insert(key.clone(), state.clone());
                news.push(state.message(key, now));
            }
        }
        news
    }
}
