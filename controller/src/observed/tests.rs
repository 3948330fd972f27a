use super::*;
use policy::name::Kind;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn split() -> ObjectRef {
    ObjectRef {
        kind: Kind::TrafficSplit,
        namespace: "shop".into(),
        name: "web".into(),
    }
}

fn state(pod: &str, needed: i64, acknowledged: bool) -> v1::ProxyState {
    v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        objects: vec![v1::ObjectState {
            object: Some(v1::ObjectRef::from(&split())),
            needed,
            acknowledged,
            nack: String::new(),
        }],
        destinations: vec!["destination/10.1.0.1:80".to_owned()],
        service_account: "client".to_owned(),
    }
}

#[test]
fn proxy_that_still_has_an_older_generation_does_not_count_as_having_the_new_one() {
    let observed = Observed::default();
    observed.note(1, state("a", 4, true));
    observed.note(2, state("b", 5, true));
    let tally = observed.tally(&split(), 5);
    assert_eq!((tally.acknowledged, tally.needed), (1, 2));
}

#[test]
fn proxies_of_peers_count_like_our_own() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    let theirs = v1::Observed {
        full: true,
        proxies: vec![state("b", 5, true)],
        gone: Vec::new(),
    };
    observed.heard(A, theirs);
    assert_eq!(observed.tally(&split(), 5).acknowledged, 2);
    observed.lost(A);
    assert_eq!(observed.tally(&split(), 5).needed, 1);
}

#[test]
fn own_stream_is_believed_over_a_peer_and_the_last_speaker_among_peers() {
    let observed = Observed::default();
    let say = |peer, acknowledged| {
        let proxies = vec![state("a", 5, acknowledged)];
        observed.heard(
            peer,
            v1::Observed {
                full: false,
                proxies,
                gone: Vec::new(),
            },
        );
    };
    say(A, false);
    say(B, true);
    assert_eq!(
        observed.tally(&split(), 5),
        Tally {
            needed: 1,
            acknowledged: 1,
            nack: None
        }
    );
    observed.note(1, state("a", 5, false));
    assert_eq!(observed.tally(&split(), 5).acknowledged, 0);
    observed.ended(1, "shop/a");
    assert_eq!(observed.tally(&split(), 5).acknowledged, 1);
}

#[test]
fn end_of_an_older_stream_does_not_hide_the_newer_one() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, false));
    observed.note(2, state("a", 5, true));
    observed.ended(1, "shop/a");
    assert_eq!(observed.tally(&split(), 5).acknowledged, 1);
}

#[test]
fn peer_gets_everything_first_and_then_only_differences() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    observed.note(2, state("b", 5, true));
    let (at, first) = observed.own_since(0);
    assert!(first[0].full);
    assert_eq!(first[0].proxies.len(), 2);
    assert!(observed.own_since(at).1.is_empty());

    observed.note(2, state("b", 6, false));
    observed.ended(1, "shop/a");
    let (_, next) = observed.own_since(at);
    assert!(!next[0].full);
    assert_eq!(next[0].proxies.len(), 1);
    assert_eq!(next[0].gone, ["shop/a"]);
}

#[test]
fn peer_that_is_too_far_behind_gets_everything_anew() {
    let observed = Observed::default();
    observed.note(1, state("first", 5, true));
    let (at, _) = observed.own_since(0);
    for number in 0..=MAX_GONE as u64 {
        let pod = format!("pod-{number}");
        observed.note(number + 2, state(&pod, 5, true));
        observed.ended(number + 2, &format!("shop/{pod}"));
    }
    let (_, messages) = observed.own_since(at);
    assert!(messages[0].full);
}

#[test]
fn full_state_of_many_proxies_is_cut_into_messages_of_which_the_first_is_full() {
    let observed = Observed::default();
    for number in 0..CHUNK as u64 + 1 {
        observed.note(number, state(&format!("pod-{number}"), 5, true));
    }
    let (_, messages) = observed.own_since(0);
    assert_eq!(
        messages
            .iter()
            .map(|message| message.full)
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn workload_remembers_its_destinations_and_no_more_than_the_bound() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    assert_eq!(observed.remembered("shop", "client").len(), 1);
    assert!(observed.remembered("shop", "other").is_empty());
    let mut many = state("a", 5, true);
    many.destinations = (0..MAX_REMEMBERED + 50)
        .map(|port| format!("destination/10.1.0.1:{port}"))
        .collect();
    observed.note(1, many);
    assert_eq!(observed.remembered("shop", "client").len(), MAX_REMEMBERED);
}

#[test]
fn object_that_nobody_needs_any_more_is_touched_and_has_no_proxies() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    assert!(
        observed
            .take_touched(Reader::Record)
            .unwrap()
            .contains(&split())
    );
    assert!(observed.take_touched(Reader::Record).unwrap().is_empty());
    observed.ended(1, "shop/a");
    assert!(
        observed
            .take_touched(Reader::Record)
            .unwrap()
            .contains(&split())
    );
    assert_eq!(observed.tally(&split(), 5), Tally::default());
}
