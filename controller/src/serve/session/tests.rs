//! What one proxy is sent next.

use policy::name::Kind;

use super::*;

fn split() -> ObjectRef {
    ObjectRef::new(Kind::TrafficSplit, "shop", "web")
}

/// A resource whose content follows from `text`, made from generation `generation`.
fn resource(name: &str, text: &str, generation: i64) -> (String, Arc<EncodedResource>) {
    let content = v1::resource::Content::Destination(v1::Destination {
        target: Some(v1::destination::Target::Service(text.to_owned())),
    });
    let resource = v1::Resource {
        name: name.to_owned(),
        version: String::new(),
        content: Some(content),
    };
    let published = EncodedResource {
        resource: wire::version::stamp(resource),
        origins: vec![(split(), generation)],
    };
    (name.to_owned(), Arc::new(published))
}

fn endpoints(ips: &[&str]) -> (String, Arc<EncodedResource>) {
    let endpoint = |ip: &&str| v1::Endpoint {
        ip: (*ip).to_owned(),
        port: 80,
        ..v1::Endpoint::default()
    };
    let content = v1::resource::Content::Endpoints(v1::Endpoints {
        endpoints: ips.iter().map(endpoint).collect(),
        ..v1::Endpoints::default()
    });
    let name = "endpoints/shop/web:80".to_owned();
    let resource = v1::Resource {
        name: name.clone(),
        version: String::new(),
        content: Some(content),
    };
    let published = EncodedResource {
        resource: wire::version::stamp(resource),
        origins: Vec::new(),
    };
    (name, Arc::new(published))
}

fn session() -> Session {
    Session::new(v1::Hello::default(), []).0
}

fn ack(batch: &v1::Batch) -> v1::Ack {
    v1::Ack {
        batch: batch.id,
        nacks: Vec::new(),
    }
}

fn nack(batch: &v1::Batch, name: &str) -> v1::Ack {
    let set = batch.set.iter().find(|set| set.name == name).unwrap();
    let nack = v1::Nack {
        name: name.to_owned(),
        version: set.version.clone(),
        reason: "bad regex".to_owned(),
    };
    v1::Ack {
        batch: batch.id,
        nacks: vec![nack],
    }
}

fn names(resources: &[v1::Resource]) -> Vec<&str> {
    resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

#[test]
fn first_batch_is_full_without_already_held_resources() {
    let target = Target::from([
        resource("a", "1", 1),
        resource("b", "1", 1),
        resource("c", "1", 1),
    ]);
    let version_of = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    let hello = v1::Hello {
        held: [
            version_of("a", &target["a"].resource.version),
            version_of("b", "older"),
            version_of("gone", "any"),
        ]
        .into(),
        ..v1::Hello::default()
    };
    let (mut session, _) = Session::new(hello, []);
    let batch = session.next(&target, Instant::now()).unwrap();
    assert!(batch.full);
    assert_eq!(batch.id, 1);
    assert_eq!(batch.unchanged, ["a"]);
    assert_eq!(names(&batch.set), ["b", "c"]);
    assert!(batch.remove.is_empty(), "a full batch drops by omission");
}

#[test]
fn first_batch_is_sent_even_if_empty() {
    let batch = session().next(&Target::new(), Instant::now()).unwrap();
    assert!(batch.full);
}

#[test]
fn later_batches_carry_only_differences_and_none_otherwise() {
    let mut session = session();
    let now = Instant::now();
    let first = Target::from([resource("a", "1", 1), resource("b", "1", 1)]);
    session.next(&first, now).unwrap();
    assert_eq!(session.next(&first, now), None);
    let second = Target::from([resource("a", "2", 2), resource("c", "1", 1)]);
    let batch = session.next(&second, now).unwrap();
    assert!(!batch.full);
    assert_eq!(names(&batch.set), ["a", "c"]);
    assert_eq!(batch.remove, ["b"]);
}

#[test]
fn unanswered_batch_delays_next_so_slow_proxy_skips_states() {
    let mut session = session();
    let now = Instant::now();
    let first = session
        .next(&Target::from([resource("a", "1", 1)]), now)
        .unwrap();
    assert_eq!(session.due(false, now + PACE), Due::AfterAnswer);
    // Two changes pass while the proxy is silent; only the newest is sent.
    session.answer(ack(&first), now + PACE);
    assert_eq!(session.due(false, now + PACE), Due::Now);
    let newest = Target::from([resource("a", "3", 3)]);
    let batch = session.next(&newest, now + PACE).unwrap();
    assert_eq!(batch.id, 2);
    assert_eq!(batch.set[0].version, newest["a"].resource.version);
}

#[test]
fn busy_proxy_gets_paced_batches_and_urgent_ones_immediately() {
    let mut session = session();
    let now = Instant::now();
    let batch = session.next(&Target::new(), now).unwrap();
    session.answer(ack(&batch), now);
    assert_eq!(session.due(false, now), Due::At(now + PACE));
    assert_eq!(session.due(true, now), Due::Now);
}

#[test]
fn urgent_batches_without_an_answer_have_a_bound() {
    let mut session = session();
    let now = Instant::now();
    for text in 0..MAX_UNANSWERED {
        assert_eq!(session.due(true, now), Due::Now);
        session
            .next(&Target::from([resource("a", &text.to_string(), 1)]), now)
            .unwrap();
    }
    assert_eq!(session.due(true, now), Due::AfterAnswer);
}

#[test]
fn removed_endpoint_is_urgent_unlike_added_one() {
    let mut session = session();
    session.next(
        &Target::from([endpoints(&["10.0.0.1", "10.0.0.2"])]),
        Instant::now(),
    );
    assert!(session.is_urgent(&Target::from([endpoints(&["10.0.0.1"])])));
    assert!(!session.is_urgent(&Target::from([endpoints(&[
        "10.0.0.1", "10.0.0.2", "10.0.0.3"
    ])])));
}

#[test]
fn object_is_acknowledged_after_all_its_resources_are() {
    let mut session = session();
    let now = Instant::now();
    let target = Target::from([resource("a", "1", 7), resource("b", "1", 7)]);
    let first = session
        .next(&Target::from([resource("a", "1", 7)]), now)
        .unwrap();
    session.answer(ack(&first), now);
    let second = session.next(&target, now).unwrap();
    let state = session.objects(&target);
    assert_eq!((state[0].needed, state[0].acknowledged), (7, false));
    session.answer(ack(&second), now);
    assert!(session.objects(&target)[0].acknowledged);
}

#[test]
fn unchanged_resources_count_as_acknowledged_with_the_first_answer() {
    let target = Target::from([resource("a", "1", 7)]);
    let versions = [("a".to_owned(), target["a"].resource.version.clone())];
    let (mut session, _) = Session::new(
        v1::Hello {
            held: versions.into(),
            ..v1::Hello::default()
        },
        [],
    );
    let batch = session.next(&target, Instant::now()).unwrap();
    assert!(!session.objects(&target)[0].acknowledged);
    session.answer(ack(&batch), Instant::now());
    assert!(session.objects(&target)[0].acknowledged);
}

#[test]
fn refused_resource_shows_reason_and_is_not_resent_unchanged() {
    let mut session = session();
    let now = Instant::now();
    let target = Target::from([resource("a", "1", 7)]);
    let batch = session.next(&target, now).unwrap();
    assert_eq!(session.answer(nack(&batch, "a"), now).refused, 1);
    let state = &session.objects(&target)[0];
    assert!(!state.acknowledged);
    assert_eq!(state.nack, "bad regex");
    assert_eq!(session.next(&target, now), None);

    let better = Target::from([resource("a", "2", 8)]);
    let batch = session.next(&better, now).unwrap();
    assert_eq!(
        session.objects(&better)[0].nack,
        "",
        "the reason was the old version's"
    );
    session.answer(ack(&batch), now);
    assert!(session.objects(&better)[0].acknowledged);
}

#[test]
fn old_answer_does_not_acknowledge_newer_version() {
    let mut session = session();
    let now = Instant::now();
    let first = session
        .next(&Target::from([resource("a", "1", 1)]), now)
        .unwrap();
    let newer = Target::from([resource("a", "2", 2)]);
    session.next(&newer, now).unwrap();
    session.answer(ack(&first), now);
    assert!(!session.objects(&newer)[0].acknowledged);
}

#[test]
fn resource_removed_and_resent_needs_acknowledgement_of_new_batch() {
    let mut session = session();
    let now = Instant::now();
    let target = Target::from([resource("a", "1", 1)]);
    let first = session.next(&target, now).unwrap();
    session.next(&Target::new(), now).unwrap();
    let third = session.next(&target, now).unwrap();
    session.answer(ack(&first), now);
    assert!(!session.objects(&target)[0].acknowledged);
    session.answer(ack(&third), now);
    assert!(session.objects(&target)[0].acknowledged);
}

#[test]
fn answer_to_unsent_batch_is_recognized() {
    assert!(
        session()
            .answer(
                v1::Ack {
                    batch: 9,
                    nacks: Vec::new()
                },
                Instant::now()
            )
            .unknown
    );
}

#[test]
fn proxy_that_never_answers_is_stuck_after_a_minute() {
    let mut session = session();
    let now = Instant::now();
    session.next(&Target::new(), now);
    assert!(!session.is_stuck(now + ANSWER_TIMEOUT / 2));
    assert!(session.is_stuck(now + ANSWER_TIMEOUT));
}

#[test]
fn destination_limit_prefers_subscribed_over_persisted_ones() {
    let subscribed = (0..MAX_DESTINATIONS)
        .map(|number| format!("asked-{number:04}"))
        .collect();
    let hello = v1::Hello {
        destinations: subscribed,
        ..v1::Hello::default()
    };
    let (mut session, left_out) = Session::new(hello, ["remembered".to_owned()]);
    assert_eq!(left_out, 0);
    assert!(!session.destinations().contains("remembered"));
    let more = v1::Subscribe {
        add: vec!["more".to_owned()],
        remove: Vec::new(),
    };
    assert_eq!(session.subscribe(more), 1);
    let change = v1::Subscribe {
        add: vec!["more".to_owned()],
        remove: vec!["asked-0000".to_owned()],
    };
    assert_eq!(session.subscribe(change), 0);
    assert_eq!(session.destinations().len(), MAX_DESTINATIONS);
}

// Claims: attack-11
#[test]
fn later_subscription_displaces_merely_persisted_destinations() {
    let subscribed = |from: usize, to: usize| (from..to).map(|number| format!("asked-{number:04}"));
    let hello = v1::Hello {
        destinations: subscribed(0, MAX_DESTINATIONS - 2).collect(),
        ..v1::Hello::default()
    };
    let retained = ["remembered-1", "remembered-2"].map(str::to_owned);
    let (mut session, _) = Session::new(hello, retained);
    assert_eq!(session.destinations().len(), MAX_DESTINATIONS);
    let mut subscribe = |add: Vec<String>| {
        let remove = Vec::new();
        session.subscribe(v1::Subscribe { add, remove })
    };
    // Requested by itself it stays.
    assert_eq!(subscribe(vec!["remembered-1".to_owned()]), 0);
    let more = subscribed(MAX_DESTINATIONS - 2, MAX_DESTINATIONS);
    assert_eq!(subscribe(more.collect()), 1);
    let destinations = session.destinations();
    assert_eq!(destinations.len(), MAX_DESTINATIONS);
    assert!(destinations.contains("remembered-1"));
    assert!(!destinations.contains("remembered-2"));
}

/// Names with their versions, or without one that was taken back.
type Changes = Vec<(String, Option<String>)>;

/// What is in use and what is refused, found by a look through all that was ever sent.
#[derive(Debug, Default)]
struct Naive {
    batches: Vec<(u64, Changes)>,
    acknowledged: BTreeMap<String, String>,
    refused: BTreeMap<String, String>,
}

impl Naive {
    fn sent(&mut self, batch: &v1::Batch) {
        let set = batch.set.iter();
        let set = set.map(|one| (one.name.clone(), Some(one.version.clone())));
        let gone = batch.remove.iter().map(|name| (name.clone(), None));
        self.batches.push((batch.id, set.chain(gone).collect()));
        for name in &batch.remove {
            self.acknowledged.remove(name);
            self.refused.remove(name);
        }
    }

    fn answered(&mut self, id: u64, nacked: &BTreeSet<String>) {
        let at = self.batches.iter().position(|(batch, _)| *batch == id);
        let at = at.unwrap();
        for (name, version) in self.batches[at].1.clone() {
            let mut later = self.batches[at + 1..].iter();
            let is_old = later.any(|(_, all)| all.iter().any(|(one, _)| *one == name));
            let (Some(version), false) = (version, is_old) else {
                continue;
            };
            if nacked.contains(&name) {
                self.acknowledged.remove(&name);
                self.refused.insert(name, version);
            } else {
                self.refused.remove(&name);
                self.acknowledged.insert(name, version);
            }
        }
    }
}

// Claims: attack-79
#[test]
fn incremental_acknowledgements_match_full_scan_of_sent_batches() {
    let mut seeds = oracle::seeds::seeds(1);
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64 ^ seeds.next().unwrap();
    let mut roll = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let (mut session, mut naive, now) = (session(), Naive::default(), Instant::now());
    let mut open: Vec<v1::Batch> = Vec::new();
    for step in 0..4_000 {
        if open.is_empty() || (open.len() < MAX_UNANSWERED && roll(2) == 0) {
            let mut target = Target::new();
            for name in ["a", "b", "c", "d", "e", "f"] {
                let text = roll(4);
                if text > 0 {
                    target.extend([resource(name, &text.to_string(), 1)]);
                }
            }
            if let Some(batch) = session.next(&target, now) {
                naive.sent(&batch);
                open.push(batch);
            }
        } else {
            // Nearly always in the order in which they were sent.
            let at = if roll(8) == 0 { roll(open.len()) } else { 0 };
            let batch = open.remove(at);
            let nacked = batch.set.iter().filter(|_| roll(4) == 0);
            let nacked: BTreeSet<String> = nacked.map(|one| one.name.clone()).collect();
            let nacks = nacked.iter().map(|name| v1::Nack {
                name: name.clone(),
                ..v1::Nack::default()
            });
            let ack = v1::Ack {
                batch: batch.id,
                nacks: nacks.collect(),
            };
            assert!(!session.answer(ack, now).unknown);
            naive.answered(batch.id, &nacked);
        }
        assert_eq!(acknowledged(&session), naive.acknowledged, "step {step}");
        let refused = session.refused.iter();
        let refused = refused.map(|(name, version)| (name.clone(), version.version.clone()));
        let refused: BTreeMap<String, String> = refused.collect();
        assert_eq!(refused, naive.refused, "step {step}");
    }
}

/// What the proxy has confirmed to use: name and version.
fn acknowledged(session: &Session) -> BTreeMap<String, String> {
    let confirmed = session.sent.iter().filter_map(|(name, sent)| {
        let used = sent.acknowledged.as_ref()?;
        Some((name.clone(), used.resource.version.clone()))
    });
    confirmed.collect()
}

/// CPU time of this thread.
fn on_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

/// Each name was looked for in all other batches, 33 000 000 comparisons for one answer.
// Claims: attack-79
#[test]
fn answer_cost_depends_only_on_its_own_batch() {
    const EACH: usize = MAX_DESTINATIONS;
    let now = Instant::now();
    let name = |at: usize| format!("destination/10.{}.{}.1:80", at / 250, at % 250);
    let target = |batches: usize| -> Target {
        let all = (0..batches * EACH).map(|at| resource(&name(at), "1", 1));
        all.collect()
    };
    let targets = [target(1), target(2), target(3)];
    let long = |batches: usize| {
        let mut session = session();
        let sent = targets[..batches].iter();
        let sent: Vec<v1::Batch> = sent
            .map(|target| session.next(target, now).unwrap())
            .collect();
        let started = on_cpu();
        let answered = session.answer(ack(&sent[0]), now);
        let took = on_cpu() - started;
        assert_eq!(answered.carried, EACH);
        assert_eq!(acknowledged(&session).len(), EACH);
        took
    };
    // The fastest of some tries: what runs beside it takes caches, but none of this time.
    let fastest = |batches| (0..5).map(|_| long(batches)).min().unwrap();
    let (alone, beside) = (fastest(1), fastest(MAX_UNANSWERED));
    assert!(
        beside < alone * 8,
        "{alone:?} alone, {beside:?} beside two others"
    );
}
