//! The leader of that mesh: what is reported to it, what it sees by its own clock, and what it
//! writes.

use super::*;

impl Mesh {
    /// What a replica sends the leader: its step and its proxies together.
    pub(super) fn report(&mut self, at: usize) {
        let reaches = |one: &Controller| one.reaches_peers;
        let both = reaches(&self.controllers[at]) && reaches(&self.controllers[self.leader]);
        let arrives = self.heals || self.chance.percent(70);
        if !arrives || !(both || at == self.leader) {
            return;
        }
        let served = self.workloads.iter().enumerate();
        let served = served.filter(|(_, workload)| workload.stream == Some(at));
        let reported = served.map(|(pod, workload)| {
            let report = match workload.has_reported {
                true => (workload.trusts.clone(), workload.leaf.map(|leaf| leaf.1)),
                false => (Vec::new(), None),
            };
            (pod, report)
        });
        let reported: BTreeMap<_, _> = reported.collect();
        // The replica that reported last holds the stream.
        for served in self.view.proxies.values_mut() {
            served.retain(|pod, _| !reported.contains_key(pod));
        }
        self.view.proxies.insert(at, reported);
        let one = &self.controllers[at];
        let since = match self.view.replicas.get(&at) {
            Some(Loaded::Step { step, since, .. }) if *step == one.loaded.step => *since,
            _ => self.now,
        };
        let loaded = match one.is_former {
            true => Loaded::Former,
            false => Loaded::Step {
                step: one.loaded.step,
                roots: one.loaded.roots.clone(),
                since,
            },
        };
        self.view.replicas.insert(at, loaded);
    }

    /// One step of the leader, by a content that may not be the newest.
    pub(super) fn lead(&mut self) {
        let since = *self.view.since.get_or_insert(self.now);
        let state = self.controllers[self.leader].loaded.clone();
        let bundled = self.bundles.last().map(|(_, roots)| roots.clone());
        if bundled.as_ref() != Some(&state.roots) && self.chance.percent(70) {
            self.bundles.push((self.now, state.roots.clone()));
        }
        let ahead = self.controllers[self.leader].ahead;
        let bundles = match self.bundles.last() {
            // A leader learns by itself when all were right.
            Some((at, roots)) if *roots == state.roots => {
                Bundles::Complete(shifted((*at).max(since), ahead))
            }
            _ => Bundles::Behind(vec!["shop".to_owned()]),
        };
        let seen = self.seen(since, bundles);
        let now = shifted(self.now, ahead);
        let next = step(&state, &seen, now);
        self.last = Some(next.clone());
        let Step::Go(next) = next else {
            return;
        };
        let is_refused = !self.heals && self.chance.percent(10);
        if is_refused || self.stored.0 != self.controllers[self.leader].version {
            return;
        }
        let next = match next {
            Move::Begin(begin) => {
                let root = self.make();
                state.started(&begin, root, now)
            }
            Move::Activate => {
                let issuer = self.make();
                state.activated(issuer, now)
            }
            Move::Retire => state.without_former(now),
            Move::Finish => state.finished(),
            other => panic!("{other:?}"),
        };
        self.history.push(next.clone());
        self.stored = (self.stored.0 + 1, next.clone());
        let is_answered = self.chance.percent(85);
        if is_answered {
            let version = self.stored.0;
            let leader = &mut self.controllers[self.leader];
            (leader.loaded, leader.version) = (next, version);
        }
    }

    /// By the leader's clock.
    fn seen(&mut self, leads_since: SystemTime, bundles: Bundles) -> Seen {
        let ahead = self.controllers[self.leader].ahead;
        let returned = leads_since + MINUTE <= self.now;
        let mut proxies = Vec::new();
        for (pod, workload) in self.workloads.iter().enumerate() {
            if !workload.runs {
                continue;
            }
            let mut views = self.view.proxies.values();
            let report = views.find_map(|served| served.get(&pod)).cloned();
            let stream = if report.is_some() {
                self.view.lost.remove(&pod);
                ProxyStream::Open
            } else {
                let lost = *self.view.lost.entry(pod).or_insert(self.now);
                match returned {
                    true => ProxyStream::None(shifted(lost, ahead)),
                    false => ProxyStream::Returning,
                }
            };
            let (trusts, authority) = report.unwrap_or_default();
            proxies.push(Proxy {
                pod: format!("shop/web-{pod}"),
                created: workload.created,
                stream,
                trusts,
                authority,
            });
        }
        let replicas = (0..3_usize).map(|at| Replica {
            name: at.to_string(),
            loaded: match self.view.replicas.get(&at) {
                Some(Loaded::Step { step, roots, since }) => Loaded::Step {
                    step: *step,
                    roots: roots.clone(),
                    since: shifted(*since, ahead),
                },
                Some(other) => other.clone(),
                None => Loaded::Unheard,
            },
        });
        Seen {
            settle: SETTLE,
            leaf_ttl: TTL,
            request: self.request.clone(),
            root_is_due: false,
            has_root_key: true,
            source: Source::Generated,
            offered: None,
            issuers: Vec::new(),
            without_issuer: Vec::new(),
            replicas: replicas.collect(),
            bundles,
            proxies: Some(proxies),
            clock_is_off: ahead.unsigned_abs() >= 60,
        }
    }
}
