//! A mesh of three controllers and some pods, in which everything fails now and then: restarts,
//! partitions, former versions, wrong clocks, restored contents, and proxies that freeze, come and go.

use std::collections::BTreeMap;

use super::*;

mod leader;

const TTL: Duration = HOUR;
const SETTLE: Duration = Duration::from_secs(120);
/// A kubelet shows a former bundle for at most this long.
const KUBELET: u64 = 90;
const LOST: Duration = Duration::from_secs(10);

/// Reproducible chance.
pub(super) struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn seconds(&mut self, choices: &[u64]) -> Duration {
        Duration::from_secs(choices[self.below(choices.len())])
    }
}

struct Controller {
    reaches_api: bool,
    reaches_peers: bool,
    is_former: bool,
    loaded: State,
    /// Version of the content that it has read last.
    version: u64,
    ahead: i64,
    /// Since when it has heard of a later step.
    heard: Option<SystemTime>,
    is_closed: bool,
    refused: Option<(u64, SystemTime)>,
}

pub(super) struct Workload {
    created: SystemTime,
    runs: bool,
    is_frozen: bool,
    stream: Option<usize>,
    trusts: Vec<AuthorityId>,
    /// Root and issuer of its leaf, and the leaf's end.
    pub(super) leaf: Option<(AuthorityId, AuthorityId, SystemTime)>,
    has_reported: bool,
}

/// Roots of a proxy and the issuer of its leaf.
type Reported = (Vec<AuthorityId>, Option<AuthorityId>);

/// What the leader has been sent.
#[derive(Default)]
struct View {
    since: Option<SystemTime>,
    /// By replica, then by pod: roots and issuer.
    proxies: BTreeMap<usize, BTreeMap<usize, Reported>>,
    replicas: BTreeMap<usize, Loaded>,
    lost: BTreeMap<usize, SystemTime>,
}

pub(super) struct Mesh {
    pub(super) chance: Chance,
    now: SystemTime,
    heals: bool,
    pub(super) compromises: bool,
    pub(super) stored: (u64, State),
    history: Vec<State>,
    controllers: Vec<Controller>,
    leader: usize,
    view: View,
    /// What the trust bundles held, and since when.
    bundles: Vec<(SystemTime, Vec<AuthorityId>)>,
    workloads: Vec<Workload>,
    request: Option<Request>,
    /// Number of the last root and issuer.
    made: u64,
    pub(super) last: Option<Step>,
}

impl Mesh {
    pub(super) fn new(seed: u64) -> Self {
        let stored = State::of(Self::numbered(1), Self::numbered(2));
        let controllers = (0..3).map(|_| Controller {
            reaches_api: true,
            reaches_peers: true,
            is_former: false,
            loaded: stored.clone(),
            version: 1,
            ahead: 0,
            heard: None,
            is_closed: false,
            refused: None,
        });
        let mut mesh = Self {
            chance: Chance(seed),
            now: start(),
            heals: false,
            compromises: seed % 4 == 3,
            controllers: controllers.collect(),
            history: vec![stored.clone()],
            bundles: vec![(UNIX_EPOCH, stored.roots.clone())],
            stored: (1, stored),
            leader: 0,
            view: View::default(),
            workloads: Vec::new(),
            request: None,
            made: 2,
            last: None,
        };
        for _ in 0..3 + mesh.chance.below(6) {
            mesh.add_workload();
        }
        mesh
    }

    fn numbered(number: u64) -> AuthorityId {
        AuthorityId::from(u128::from(number).to_be_bytes())
    }

    fn make(&mut self) -> AuthorityId {
        self.made += 1;
        Self::numbered(self.made)
    }

    /// What a pod finds mounted.
    fn mounted(&mut self) -> Vec<AuthorityId> {
        let shown = self.now - Duration::from_secs(self.chance.next() % (KUBELET + 1));
        let of_then = self.bundles.iter().rev().find(|(at, _)| *at <= shown);
        of_then.map(|(_, roots)| roots.clone()).unwrap_or_default()
    }

    fn add_workload(&mut self) {
        let trusts = self.mounted();
        self.workloads.push(Workload {
            created: self.now,
            runs: true,
            is_frozen: false,
            stream: None,
            trusts,
            leaf: None,
            has_reported: false,
        });
    }

    pub(super) fn tick(&mut self) {
        let choices: &[u64] = if self.heals {
            &[5, 30, 60]
        } else {
            &[1, 1, 2, 5, 10, 30]
        };
        self.now += self.chance.seconds(choices);
        if !self.heals {
            self.fail();
        }
        for at in 0..self.controllers.len() {
            self.read(at);
        }
        self.close_late_ones();
        for at in 0..self.workloads.len() {
            if self.workloads[at].runs {
                self.work(at);
            }
        }
        for at in 0..self.controllers.len() {
            self.report(at);
        }
        let leader = &self.controllers[self.leader];
        if leader.reaches_api && !leader.is_former {
            self.lead();
        }
    }

    fn fail(&mut self) {
        let newest = self.controllers.iter().map(|one| one.loaded.step).max();
        let is_newest = newest.is_none_or(|newest| self.stored.1.step >= newest);
        for at in 0..self.controllers.len() {
            let (api, peers, version) = (
                self.chance.percent(5),
                self.chance.percent(5),
                self.chance.percent(2),
            );
            let one = &mut self.controllers[at];
            one.reaches_api ^= api;
            one.reaches_peers ^= peers;
            // A former version takes every content, so it is not there when one is restored.
            one.is_former ^= version && is_newest;
            if self.chance.percent(3) {
                let choices = [0, 0, 0, 30, -30, 500, -500, 90_000, -90_000];
                self.controllers[at].ahead = choices[self.chance.below(choices.len())];
            }
        }
        if self.chance.percent(4) {
            self.leader = self.chance.below(3);
            self.view = View::default();
        }
        if self.chance.percent(3) {
            self.restart();
        }
        if self.chance.percent(3) && !self.controllers.iter().any(|one| one.is_former) {
            let backup = self.chance.below(self.history.len());
            self.stored = (self.stored.0 + 1, self.history[backup].clone());
        }
        if self.chance.percent(10) {
            self.add_workload();
        }
        if self.chance.percent(5) {
            let at = self.chance.below(self.workloads.len());
            self.workloads[at].runs = false;
            self.workloads[at].stream = None;
        }
        if self.chance.percent(5) {
            let hasty = self.compromises && self.chance.percent(30);
            self.request = Some(Request {
                id: format!("request-{}", self.chance.next()),
                scope: Scope::Root,
                reason: if hasty {
                    Reason::Compromise
                } else {
                    Reason::Planned
                },
            });
        }
    }

    /// One replica starts anew; it waits for a content that the others know.
    fn restart(&mut self) {
        let at = self.chance.below(3);
        let others = self
            .controllers
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at);
        let newest = others.map(|(_, one)| one.loaded.step).max();
        let (version, stored) = self.stored.clone();
        let one = &mut self.controllers[at];
        if !one.reaches_api {
            return;
        }
        if newest.is_none_or(|newest| stored.step >= newest) {
            (one.loaded, one.version) = (stored, version);
        }
        self.end_streams(at);
        if at == self.leader {
            self.view = View::default();
        }
    }

    fn end_streams(&mut self, of: usize) {
        for workload in &mut self.workloads {
            workload.stream = workload.stream.filter(|at| *at != of);
        }
    }

    fn read(&mut self, at: usize) {
        let reads = self.heals || self.chance.percent(60);
        let (version, found) = self.stored.clone();
        let one = &mut self.controllers[at];
        if !one.reaches_api || !reads {
            return;
        }
        if one.is_former || !one.loaded.is_undone_by(&found) {
            (one.loaded, one.version, one.refused) = (found, version, None);
            return;
        }
        let since = match one.refused {
            Some((known, since)) if known == version => since,
            _ => self.now,
        };
        one.refused = Some((version, since));
        let is_due = at == self.leader || since + Duration::from_secs(15) <= self.now;
        if is_due {
            let again = one.loaded.written_over(&found);
            (one.loaded, one.version) = (again.clone(), version + 1);
            self.history.push(again.clone());
            self.stored = (version + 1, again);
        }
    }

    /// A replica that is notified of a later step and does not read it ends its streams.
    fn close_late_ones(&mut self) {
        let heard = self
            .controllers
            .iter()
            .filter(|one| one.reaches_peers && !one.is_former);
        let newest = heard.map(|one| one.loaded.step).max().unwrap_or_default();
        for at in 0..self.controllers.len() {
            let now = self.now;
            let one = &mut self.controllers[at];
            if !one.reaches_peers || one.is_former || one.loaded.step >= newest {
                (one.heard, one.is_closed) = (None, false);
                continue;
            }
            if *one.heard.get_or_insert(now) + LOST <= now {
                one.is_closed = true;
                self.end_streams(at);
            }
        }
    }

    fn work(&mut self, at: usize) {
        if self.chance.percent(2) {
            self.workloads[at].is_frozen ^= true;
        }
        if self.heals {
            self.workloads[at].is_frozen = false;
        }
        let breaks = !self.heals && self.chance.percent(8);
        if breaks || self.workloads[at].is_frozen {
            self.workloads[at].stream = None;
        }
        let Some(serving) = self.workloads[at].stream else {
            if !self.workloads[at].is_frozen && self.chance.percent(60) {
                self.connect(at);
            }
            return;
        };
        let loaded = self.controllers[serving].loaded.clone();
        if self.chance.percent(80) {
            let workload = &mut self.workloads[at];
            workload.trusts.clone_from(&loaded.roots);
            workload.has_reported = true;
            let other = workload
                .leaf
                .is_some_and(|leaf| Some(leaf.0) != loaded.active());
            let renews = loaded.phase() != Some(Phase::Preparing);
            if other && renews && self.chance.percent(50) {
                self.certify(at);
            }
        }
        let end = self.workloads[at].leaf.map_or(self.now, |leaf| leaf.2);
        if end < self.now + TTL / 3 {
            self.certify(at);
        }
        if self.workloads[at]
            .leaf
            .is_none_or(|leaf| leaf.2 <= self.now)
        {
            self.workloads[at].stream = None;
        }
    }

    /// Any replica signs. It proves itself by a leaf of its own.
    fn certify(&mut self, at: usize) {
        let signer = self.chance.below(3);
        let signer = &self.controllers[signer].loaded;
        let (Some(root), Some(issuer)) = (signer.active(), signer.issuers.last().copied()) else {
            return;
        };
        if !self.workloads[at].trusts.contains(&root) {
            self.workloads[at].trusts = self.mounted();
        }
        let workload = &mut self.workloads[at];
        if workload.trusts.contains(&root) {
            workload.leaf = Some((root, issuer, self.now + TTL));
        }
    }

    fn connect(&mut self, at: usize) {
        if self.workloads[at]
            .leaf
            .is_none_or(|leaf| leaf.2 <= self.now)
        {
            self.certify(at);
        }
        let to = self.chance.below(3);
        let Some(leaf) = self.workloads[at].leaf.filter(|leaf| leaf.2 > self.now) else {
            return;
        };
        let controller = &self.controllers[to];
        let is_trusted = (controller.loaded.active())
            .is_some_and(|root| self.workloads[at].trusts.contains(&root));
        if controller.is_closed {
            return;
        }
        if !controller.loaded.roots.contains(&leaf.0) {
            self.certify(at);
        } else if is_trusted {
            self.workloads[at].stream = Some(to);
            self.workloads[at].has_reported = false;
        } else {
            self.workloads[at].trusts = self.mounted();
        }
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = &Workload> {
        let workloads = self.workloads.iter();
        workloads.filter(|workload| workload.runs && workload.stream.is_some())
    }

    /// Connected proxies accept each other.
    pub(super) fn must_hold(&self, seed: u64) {
        for caller in self.connected() {
            let root = caller.leaf.map(|leaf| leaf.0);
            for called in self.connected() {
                let accepts = root.is_some_and(|root| called.trusts.contains(&root));
                let state = &self.stored.1;
                assert!(
                    accepts,
                    "schedule {seed}: {root:?} {:?} {state:?}",
                    called.trusts
                );
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        let state = &self.stored.1;
        let ran = |request: &Request| state.ids.contains(&request.id);
        state.rotation.is_none()
            && self.request.as_ref().is_none_or(ran)
            && self.controllers.iter().all(|one| one.loaded == *state)
    }

    pub(super) fn heal(&mut self) {
        self.heals = true;
        for one in &mut self.controllers {
            (one.reaches_api, one.reaches_peers, one.is_former) = (true, true, false);
            (one.ahead, one.heard, one.is_closed) = (0, None, false);
        }
    }
}

fn shifted(at: SystemTime, ahead: i64) -> SystemTime {
    let by = Duration::from_secs(ahead.unsigned_abs());
    if ahead < 0 { at - by } else { at + by }
}
