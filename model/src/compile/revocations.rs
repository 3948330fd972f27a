//! Compiles Revocations: which certificates are refused, and what users read of it.
//!
//! A subject that must not be revoked, or means nothing, costs itself alone. What names something
//! that is not there is in force all the same: it may be spelt rightly, and come. Objects are taken
//! in the order of their age, so that one too many costs no older one its place.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crds::weft::validation::{RevocationSubject, Revoked as Spec};
use policy::mode::MtlsMode;
use policy::name::Kind;
use policy::revoked::{Held, MAX_OBJECTS, MAX_SUBJECTS, Revocation, Revoked, Subject};

use super::accounts;
use super::findings::{About, Findings};
use crate::{
    model::{
        Defaults, modes,
        peers::Workload,
        revoked::{FoundPods, Plaintext, RevocationContext, RevocationSet, RevokedContent},
    },
    problem::Reason,
    world::{self, ObjectKey, RevocationFacts, World, object},
};

/// By how many seconds `issuedBefore` may be after the object was made: certificates are dated
/// back by as much.
const AHEAD: i64 = 5 * 60;
/// Uids of pods that are kept of one node, many times what it runs at one time.
const MAX_OF_NODE: usize = 512;

/// What all of them come to.
pub(super) fn compile(
    world: &World,
    defaults: &Defaults,
    findings: &mut Findings,
) -> RevocationSet {
    if world.revocations.is_empty() {
        return RevocationSet::default();
    }
    let around = Surroundings::new(world, &defaults.revocation);
    let mut content = RevokedContent {
        plaintext: plaintext(world, defaults),
        ..RevokedContent::default()
    };
    let mut order: Vec<(&ObjectKey, &Arc<RevocationFacts>)> = world.revocations.iter().collect();
    order.sort_by_key(|(key, facts)| (facts.meta.created, *key));
    let mut of_nodes = Vec::new();
    for &(key, facts) in &order {
        let this = object(Kind::Revocation, key);
        findings.seen(this.clone(), &facts.meta, summary(&facts.spec));
        let mut about = findings.about(&this, facts.meta.generation);
        about.add_mistakes(&facts.meta.mistakes);
        let mut reading = Reading::new(&around, facts, about);
        reading.read();
        reading.add_to(&mut content, &mut of_nodes, key);
    }
    // What is named keeps its place however many pods a node runs one after the other, and those
    // that are there go before those that have gone.
    of_nodes.sort_by_key(|of_node| of_node.is_gone);
    let room = MAX_SUBJECTS.saturating_sub(content.all.len());
    let beyond = of_nodes.split_off(room.min(of_nodes.len()));
    content.all.extend(of_nodes.into_iter().map(|one| one.pod));
    let beyond: BTreeSet<&str> = beyond.iter().map(|one| &**one.pod.by.name()).collect();
    for (key, facts) in order {
        if beyond.contains(&*key.name) {
            let this = object(Kind::Revocation, key);
            let message = format!(
                "not all pods of its nodes are refused by others, as {MAX_SUBJECTS} accounts, pods, \
                 certificates and issuers hold all places; delete Revocations whose certificates \
                 have ended"
            );
            findings.about(&this, facts.meta.generation).warn(
                Reason::TooMany,
                "spec.subjects",
                message,
            );
        }
    }
    RevocationSet::new(content)
}

/// Whether a change of pods changes what Revocations come to.
pub(super) fn differ(world: &World, defaults: &Defaults, before: &RevocationSet) -> bool {
    // Without any there is nothing to look at.
    !world.revocations.is_empty()
        && compile(world, defaults, &mut Findings::default()).content != before.content
}

/// `sa shop/web, 2 more`
fn summary(spec: &Spec) -> String {
    let first = spec.subjects.first();
    let first = first.map(|(_, subject)| subject.to_string());
    let first = first.unwrap_or_default();
    match spec.subjects.len().saturating_sub(1) {
        0 => first,
        more => format!("{first}, {more} more"),
    }
}

/// What of the World subjects are looked up in.
struct Surroundings<'a> {
    world: &'a World,
    context: &'a RevocationContext,
    /// Uids of pods with a proxy, by namespace and account.
    by_account: HashMap<(&'a str, &'a str), Vec<&'a Arc<str>>>,
    /// The same by node.
    by_node: HashMap<&'a str, Vec<&'a Arc<str>>>,
    /// Uids of the controllers' pods.
    controllers: HashSet<&'a str>,
    /// Where they run.
    their_nodes: HashSet<&'a str>,
}

impl<'a> Surroundings<'a> {
    fn new(world: &'a World, context: &'a RevocationContext) -> Self {
        let mut around = Self {
            world,
            context,
            by_account: HashMap::new(),
            by_node: HashMap::new(),
            controllers: HashSet::new(),
            their_nodes: HashSet::new(),
        };
        for (pod, facts) in world.pods.iter() {
            let account = (&*pod.namespace, &*facts.service_account);
            if facts.proxy.is_some() {
                let of_account = around.by_account.entry(account).or_default();
                of_account.push(&facts.uid);
                let of_node = around.by_node.entry(&facts.node).or_default();
                of_node.push(&facts.uid);
            }
            let theirs = context.controller.as_ref();
            if !facts.ended && theirs.is_some_and(|own| account == (&*own.namespace, &*own.name)) {
                around.controllers.insert(&facts.uid);
                around.their_nodes.insert(&facts.node);
            }
        }
        around
    }
}

/// One pod of a node that is revoked.
struct OfNode {
    is_gone: bool,
    pod: Revocation,
}

/// One object being read.
struct Reading<'s> {
    around: &'s Surroundings<'s>,
    facts: &'s RevocationFacts,
    about: About<'s>,
    /// Those that it names.
    subjects: Vec<Subject>,
    nodes: Vec<Arc<str>>,
    /// Uids of the pods that run on these, and of those that have gone.
    on_nodes: [Vec<Arc<str>>; 2],
    /// Uids of the pods that it is about, but for those of certificates and issuers.
    pods: BTreeSet<Arc<str>>,
    found: Vec<FoundPods>,
    unresolved: Vec<usize>,
}

impl<'s> Reading<'s> {
    fn new(around: &'s Surroundings<'s>, facts: &'s RevocationFacts, about: About<'s>) -> Self {
        Self {
            around,
            facts,
            about,
            subjects: Vec::new(),
            nodes: Vec::new(),
            on_nodes: [Vec::new(), Vec::new()],
            pods: BTreeSet::new(),
            found: Vec::new(),
            unresolved: Vec::new(),
        }
    }

    fn read(&mut self) {
        let facts = self.facts;
        let (spec, created) = (&facts.spec, facts.meta.created);
        let latest = created.saturating_add(AHEAD);
        if created > 0 && spec.issued_before.is_some_and(|before| before > latest) {
            let message = "is more than 5 minutes after the object was made: certificates are not \
                           dated ahead by more; write the time of now into another Revocation, \
                           nothing is revoked by this one";
            self.about
                .refuse(Reason::Invalid, "spec.issuedBefore", message.to_owned());
            return;
        }
        for (i, subject) in &spec.subjects {
            self.subject(*i, subject);
        }
    }

    fn subject(&mut self, i: usize, subject: &RevocationSubject) {
        let field = format!("spec.subjects[{i}]");
        match subject {
            RevocationSubject::ServiceAccount { namespace, name } => {
                let account = ObjectKey {
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                self.account(&format!("{field}.serviceAccount"), &account);
            }
            RevocationSubject::Pod {
                namespace,
                name,
                uid,
            } => {
                let pod = ObjectKey {
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                let subject = subject.to_string().into();
                self.pod(&format!("{field}.pod"), i, subject, &pod, uid.as_ref());
            }
            RevocationSubject::Node { name } => {
                let subject = subject.to_string().into();
                self.node(&format!("{field}.node.name"), i, subject, name);
            }
            RevocationSubject::Certificate { serial } => {
                self.subjects.push(Subject::Serial((&**serial).into()));
            }
            RevocationSubject::Issuer { authority } => {
                let signing = &self.around.context.signing;
                if signing.is_empty() {
                    // It may be the one in use, and nothing is served before that is known.
                    return;
                }
                if signing.contains(authority) {
                    let message = "signs the mesh's certificates now, so all would be refused; \
                                   replace it first (weft identity rotate --compromise), this \
                                   subject is not revoked";
                    let field = format!("{field}.issuer.fingerprint");
                    self.about
                        .refuse(Reason::IssuerInUse, &field, message.to_owned());
                    return;
                }
                self.subjects.push(Subject::Issuer(*authority));
            }
        }
    }

    fn account(&mut self, field: &str, account: &ObjectKey) {
        if self.around.context.controller.as_ref() == Some(account) {
            self.refuse_control_plane(field, "is the controllers' account");
            return;
        }
        let name = format!("{field}.name");
        accounts::must_exist(self.around.world, &mut self.about, account, (&name, ""));
        let pods = self
            .around
            .by_account
            .get(&(&*account.namespace, &*account.name));
        self.pods
            .extend(pods.into_iter().flatten().copied().cloned());
        self.subjects.push(Subject::ServiceAccount {
            namespace: (&*account.namespace).into(),
            name: (&*account.name).into(),
        });
    }

    fn pod(
        &mut self,
        field: &str,
        i: usize,
        subject: Arc<str>,
        pod: &ObjectKey,
        uid: Option<&Arc<str>>,
    ) {
        let kept = self.facts.kept.get(&subject).and_then(|uids| uids.first());
        let here = self.around.world.pods.get(pod).map(|facts| &facts.uid);
        let Some(uid) = uid.or(kept).or(here) else {
            self.unresolved.push(i);
            self.about
                .unresolved_with(Reason::RefNotFound, &format!("{field}.name"), || {
                    format!(
                        "there is no pod {pod}: correct the name, or write the uid of one that is \
                         gone; the first pod of this name will be revoked"
                    )
                });
            return;
        };
        if self.around.controllers.contains(&**uid) {
            self.refuse_control_plane(field, "is a controller");
            return;
        }
        self.pods.insert(uid.clone());
        self.subjects.push(of_pod(uid));
        self.found.push(FoundPods {
            subject,
            uids: vec![uid.clone()],
        });
    }

    fn node(&mut self, field: &str, i: usize, subject: Arc<str>, name: &Arc<str>) {
        let around = self.around;
        let in_force = self.facts.kept.contains_key(&subject);
        if around.their_nodes.contains(&**name) {
            if !in_force {
                self.refuse_control_plane(field, "is a node of the controllers");
                return;
            }
            // Where one is scheduled must not let in what was refused there.
            let message = "is a node of the controllers by now: it stays revoked, but for them; \
                           move them away (kubectl drain)";
            self.about
                .warn(Reason::ControlPlane, field, message.to_owned());
        }
        let nodes = &around.world.nodes;
        if !nodes.is_empty() && !nodes.contains_key(&ObjectKey::new("", name)) {
            self.unresolved.push(i);
            self.about.unresolved_with(Reason::RefNotFound, field, || {
                format!("there is no node {name}: correct the name, unless the node is gone")
            });
        }
        let here: Vec<Arc<str>> = around
            .by_node
            .get(&**name)
            .into_iter()
            .flatten()
            .copied()
            .filter(|uid| !around.controllers.contains(&***uid))
            .cloned()
            .collect();
        let kept = self.facts.kept.get(&subject).into_iter().flatten();
        let gone = kept.filter(|uid| !here.contains(uid)).cloned();
        let mut uids: Vec<Arc<str>> = gone.collect();
        // Certificates of those that went first end first.
        let over = (uids.len() + here.len()).saturating_sub(MAX_OF_NODE);
        uids.drain(..over.min(uids.len()));
        let [on_it, gone] = &mut self.on_nodes;
        on_it.extend(here.iter().cloned());
        // The certificates of the last ones end last.
        gone.extend(uids.iter().rev().cloned());
        uids.extend(here);
        self.pods.extend(uids.iter().cloned());
        self.nodes.push(name.clone());
        if !uids.is_empty() {
            self.found.push(FoundPods { subject, uids });
        }
    }

    fn refuse_control_plane(&mut self, field: &str, what: &str) {
        let message = format!(
            "{what}: without controllers no proxy would get anything new; move or replace them \
             first, this subject is not revoked"
        );
        self.about.refuse(Reason::ControlPlane, field, message);
    }

    /// Puts what it comes to beside that of older objects.
    fn add_to(mut self, content: &mut RevokedContent, of_nodes: &mut Vec<OfNode>, key: &ObjectKey) {
        if !self.unresolved.is_empty() {
            content.unresolved.insert(key.clone(), self.unresolved);
        }
        if self.subjects.is_empty() && self.nodes.is_empty() {
            return;
        }
        let held = Held {
            objects: content.in_force.len() + content.announced.len(),
            subjects: content.all.len(),
        };
        if !held.leaves_room_for(self.subjects.len()) {
            content.beyond.insert(key.clone());
            let message = format!(
                "older ones hold all places: {MAX_OBJECTS} Revocations may be in force, with \
                 {MAX_SUBJECTS} accounts, pods, certificates and issuers; delete those whose \
                 certificates have ended, nothing is revoked by this one"
            );
            self.about.refuse(Reason::TooMany, "", message);
            return;
        }
        if let Some(message) = content.plaintext.warning() {
            self.about.warn(Reason::PlaintextStillOpen, "", message);
        }
        let meta = &self.facts.meta;
        let this = object(Kind::Revocation, key);
        let by = world::named(&this);
        let issued_before = self.facts.spec.issued_before.map(at);
        let announced =
            issued_before.is_some() && self.around.context.announced.contains(&meta.uid);
        let revocation = |subject| Revocation {
            subject,
            issued_before,
            announced,
            by: by.clone(),
        };
        content
            .all
            .extend(self.subjects.into_iter().map(revocation));
        for (uids, is_gone) in self.on_nodes.iter().zip([false, true]) {
            let pods = uids.iter().map(|uid| revocation(of_pod(uid)));
            of_nodes.extend(pods.map(|pod| OfNode { is_gone, pod }));
        }
        for node in self.nodes {
            let revoked = Revoked {
                by: by.clone(),
                issued_before,
            };
            content.add_node(node, revoked);
        }
        if issued_before.is_none() {
            content.ended.append(&mut self.pods);
        }
        if !self.found.is_empty() {
            content.found.insert(key.clone(), self.found);
        }
        match announced {
            true => drop(content.announced.insert(this)),
            false => content.in_force.push((this, meta.generation)),
        }
    }
}

fn of_pod(uid: &str) -> Subject {
    Subject::Pod { uid: uid.into() }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// What of the mesh is reached without a certificate.
fn plaintext(world: &World, defaults: &Defaults) -> Plaintext {
    let (mut workloads, mut ports) = (HashSet::new(), HashMap::new());
    let meshed = world.pods.iter();
    let meshed = meshed.filter(|(_, facts)| facts.proxy.is_some() && !facts.ended);
    for (pod, facts) in meshed {
        let namespace = world.namespace(&pod.namespace);
        let annotations = &facts.annotations;
        if modes::mtls(defaults, namespace, annotations) == MtlsMode::Permissive {
            workloads.insert(Workload::of(pod, facts));
            continue;
        }
        let open = modes::permissive_ports(defaults, namespace, annotations);
        let count = open
            .iter()
            .map(|range| usize::from(range.last()) - usize::from(range.first()) + 1);
        let count: usize = count.sum();
        if count > 0 {
            let known = ports.entry(Workload::of(pod, facts)).or_insert(0);
            *known = count.max(*known);
        }
    }
    Plaintext {
        workloads: workloads.len(),
        ports: ports.into_values().sum(),
    }
}
