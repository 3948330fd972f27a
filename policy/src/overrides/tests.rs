//! What a request may choose, and which choices count.
//!
//! Claims: calls-58

use proptest::prelude::*;

use super::*;

fn service(name: &str) -> ServiceId {
    ServiceId::new("shop", name)
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", name).unwrap()
}

fn sources(names: &[&str]) -> Vec<Source> {
    names
        .iter()
        .map(|name| Source::Identity(account(name)))
        .collect()
}

fn offered() -> Vec<Override> {
    vec![Override {
        to: vec![service("catalog-staging")],
        sources: sources(&["qa"]),
        forwarders: sources(&["web", "cart"]),
        tokens: vec![Token {
            sha256: [7; 32],
            expires: 1000,
        }],
    }]
}

fn granted(own: &str, origin: OverrideOrigin<'_>, proof: Option<&Proof>) -> Result<(), Ignored> {
    let own = account(own);
    grant(
        &offered(),
        &service("catalog-staging"),
        Caller::mesh(&own),
        origin,
        proof,
        999,
    )
}

#[test]
fn a_header_names_up_to_four_services() {
    let header = parse(b"catalog=catalog-staging, cart.other=cart-2", "shop").unwrap();
    assert_eq!(
        header.of(&service("catalog"), "shop"),
        Some(service("catalog-staging"))
    );
    assert_eq!(header.of(&service("catalog"), "other"), None);
    let cart = ServiceId::new("other", "cart");
    assert_eq!(
        header.of(&cart, "shop"),
        Some(ServiceId::new("other", "cart-2"))
    );
    assert_eq!(header.of(&service("cart"), "shop"), None);
    // The next hop lives elsewhere, and reads the same.
    let handed_on = header.write("shop");
    assert_eq!(handed_on, "catalog.shop=catalog-staging, cart.other=cart-2");
    let read = parse(handed_on.as_bytes(), "other").unwrap();
    assert_eq!(
        read.of(&service("catalog"), "other"),
        Some(service("catalog-staging"))
    );
    assert!(parse(b"a=b,c=d,e=f,g=h", "shop").is_ok());
}

#[test]
fn a_bad_header_is_no_wish_at_all() {
    let long = format!("{}=b", "a".repeat(512));
    for (value, why) in [
        (&b""[..], BadRoute::Entry),
        (b"a", BadRoute::Entry),
        (b"a=", BadRoute::Entry),
        (b"=b", BadRoute::Entry),
        (b"a=b,", BadRoute::Entry),
        (b"a=b;c=d", BadRoute::Entry),
        (b"a=b=c", BadRoute::Entry),
        (b"a.b.c=d", BadRoute::Entry),
        (b"a.=d", BadRoute::Entry),
        (b"a=b.c", BadRoute::Entry),
        (b"A=b", BadRoute::Entry),
        (b"-a=b", BadRoute::Entry),
        (b"a=b-", BadRoute::Entry),
        (b"a =b", BadRoute::Entry),
        (b"\xff=b", BadRoute::Entry),
        (b"a=b,c=d,e=f,g=h,i=j", BadRoute::TooMany),
        (b"a=b,a=c", BadRoute::Twice),
        (b"a=b,a.shop=c", BadRoute::Twice),
        (long.as_bytes(), BadRoute::TooLong),
    ] {
        assert_eq!(
            parse(value, "shop"),
            Err(why),
            "{:?}",
            String::from_utf8_lossy(value)
        );
    }
    let name = format!("{}=b", "a".repeat(64));
    assert_eq!(parse(name.as_bytes(), "shop"), Err(BadRoute::Entry));
    assert!(parse(b"a.x=b,a.y=c", "shop").is_ok());
}

#[test]
fn header_unreadable_at_next_hop_is_refused_early() {
    let long = |letter: &str| letter.repeat(60);
    let entries = ["a", "b", "c", "d"].map(|letter| format!("{}=x", long(letter)));
    let value = entries.join(",");
    assert!(value.len() < LONGEST);
    // Four names of 60 bytes, "=x" and "." each, ", " three times: 258 without namespaces.
    let fits = "n".repeat(63);
    let header = parse(value.as_bytes(), &fits).unwrap();
    assert_eq!(header.write(&fits).len(), 510);
    let value = value.replace("=x", "=xx");
    let too_long = parse(value.as_bytes(), &fits);
    assert_eq!(too_long, Err(BadRoute::TooLong));
    let shorter = "n".repeat(62);
    let header = parse(value.as_bytes(), &shorter).unwrap();
    let handed_on = header.write(&shorter);
    assert!(parse(handed_on.as_bytes(), "elsewhere").is_ok());
}

#[test]
fn the_account_that_asks_first_must_be_listed() {
    assert_eq!(granted("qa", OverrideOrigin::Here, None), Ok(()));
    assert_eq!(
        granted("web", OverrideOrigin::Here, None),
        Err(Ignored::Right)
    );
    let qa = Proof::Account(account("qa"));
    assert_eq!(
        granted("web", OverrideOrigin::Here, Some(&qa)),
        Err(Ignored::Right),
        "an application proves nothing by a header"
    );
}

#[test]
fn override_passes_further_hops_only_through_allowed_forwarders() {
    let (qa, web, other) = (account("qa"), account("web"), account("other"));
    let first = Proof::Account(qa.clone());
    let with = |own, peer: &SpiffeId, proof| {
        granted(own, OverrideOrigin::With(Caller::mesh(peer), &[]), proof)
    };
    assert_eq!(with("web", &qa, Some(&first)), Ok(()));
    assert_eq!(with("cart", &web, Some(&first)), Ok(()), "the third hop");
    assert_eq!(with("other", &qa, Some(&first)), Err(Ignored::Forwarder));
    assert_eq!(with("cart", &other, Some(&first)), Err(Ignored::Forwarder));
    // A forwarder that chooses for itself has no right.
    let own_wish = Proof::Account(web.clone());
    assert_eq!(with("cart", &web, Some(&own_wish)), Err(Ignored::Right));
    assert_eq!(with("cart", &web, None), Err(Ignored::Right));
}

#[test]
fn disallowed_forwarder_stops_override_for_all_later_hops() {
    let (qa, web, other) = (account("qa"), account("web"), account("other"));
    let proof = Proof::Account(qa.clone());
    let through = |accounts: &[SpiffeId]| {
        let origin = OverrideOrigin::With(Caller::mesh(&web), accounts);
        granted("cart", origin, Some(&proof))
    };
    assert_eq!(through(std::slice::from_ref(&qa)), Ok(()));
    assert_eq!(through(&[qa.clone(), web.clone()]), Ok(()));
    let ended = Err(Ignored::Forwarder);
    assert_eq!(through(&[qa.clone(), other.clone()]), ended);
    assert_eq!(through(&[other, qa]), ended);
}

#[test]
fn forwarded_proof_lists_all_hops_and_stops_after_max() {
    let first = ProofHeader {
        proof: Proof::Token([0xab; 32]),
        through: Vec::new(),
    };
    assert_eq!(first.write(), first.proof.write());
    let mut handed = first;
    for hop in 0..HOPS {
        let text = handed.write();
        assert_eq!(ProofHeader::parse(text.as_bytes()), Some(handed.clone()));
        assert_eq!(handed.through.len(), hop);
        handed = handed.after(&account(&format!("hop-{hop}"))).unwrap();
    }
    let last = handed.write();
    assert!(last.ends_with("hop-7") && last.contains("hop-0"), "{last}");
    assert_eq!(handed.after(&account("one-more")), None);
    let more = format!("{last}, {}", account("one-more").as_str());
    assert_eq!(ProofHeader::parse(more.as_bytes()), None);
    let web = account("web");
    for bad in ["", ",", "x", "spiffe://", &format!("{},", web.as_str())] {
        assert_eq!(ProofHeader::parse(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn forwarded_proof_stays_readable_and_short_for_any_accounts() {
    let long = |n: usize| account(&format!("{n}{}", "a".repeat(252)));
    let mut handed = Some(ProofHeader {
        proof: Proof::Both([1; 32], long(9)),
        through: Vec::new(),
    });
    let mut hops = 0;
    while let Some(one) = handed {
        let text = one.write();
        assert!(text.len() <= proof::LONGEST);
        assert_eq!(ProofHeader::parse(text.as_bytes()).as_ref(), Some(&one));
        handed = one.after(&long(hops));
        hops += 1;
    }
    assert_eq!(hops, HOPS + 1, "no name in a cluster is too long");
    let name = "n".repeat(2000);
    let foreign = SpiffeId::try_from(format!("spiffe://d/{name}").as_str()).unwrap();
    let one = ProofHeader {
        proof: Proof::Account(foreign.clone()),
        through: vec![foreign.clone()],
    };
    assert_eq!(one.after(&foreign), None);
    let text = format!("{}, {foreign}", one.write());
    assert_eq!(ProofHeader::parse(text.as_bytes()), None);
}

#[test]
fn token_grants_any_bearer_until_expiry() {
    let (token, wrong) = (Proof::Token([7; 32]), Proof::Token([8; 32]));
    assert_eq!(granted("other", OverrideOrigin::Here, Some(&token)), Ok(()));
    assert_eq!(
        granted("other", OverrideOrigin::Here, Some(&wrong)),
        Err(Ignored::Right)
    );
    let outside = OverrideOrigin::With(Caller::Outside, &[]);
    assert_eq!(granted("web", outside, Some(&token)), Ok(()));
    assert_eq!(
        granted("other", outside, Some(&token)),
        Err(Ignored::Forwarder)
    );
    assert_eq!(granted("web", outside, None), Err(Ignored::Right));
    let forged = Proof::Account(account("qa"));
    assert_eq!(granted("web", outside, Some(&forged)), Err(Ignored::Right));

    let own = account("web");
    let at = |unix| {
        let target = service("catalog-staging");
        grant(
            &offered(),
            &target,
            Caller::mesh(&own),
            outside,
            Some(&token),
            unix,
        )
    };
    assert_eq!(at(999), Ok(()));
    assert_eq!(at(1000), Err(Ignored::Expired));
}

#[test]
fn invalid_token_keeps_right_of_account_beside_it() {
    let (qa, web) = (account("qa"), account("web"));
    let through = [qa.clone()];
    let granted_by = |proof: &Proof| {
        let next = granted(
            "web",
            OverrideOrigin::With(Caller::mesh(&qa), &[]),
            Some(proof),
        );
        let further = granted(
            "cart",
            OverrideOrigin::With(Caller::mesh(&web), &through),
            Some(proof),
        );
        assert_eq!(next, further);
        next
    };
    let wrong = [8; 32];
    assert_eq!(granted_by(&Proof::Both(wrong, qa.clone())), Ok(()));
    assert_eq!(granted_by(&Proof::Both([7; 32], account("other"))), Ok(()));
    let neither = Proof::Both(wrong, account("other"));
    assert_eq!(granted_by(&neither), Err(Ignored::Right));
    assert_eq!(granted_by(&Proof::Token(wrong)), Err(Ignored::Right));
    let outside = OverrideOrigin::With(Caller::Outside, &[]);
    let forged = Proof::Both(wrong, qa.clone());
    let right = Err(Ignored::Right);
    assert_eq!(granted("web", outside, Some(&forged)), right);
}

#[test]
fn token_bearer_need_not_be_allowed_forwarder() {
    let (web, other) = (account("web"), account("other"));
    let proof = Proof::Both([7; 32], other.clone());
    let granted_by = |own, peer: &SpiffeId, through: &[SpiffeId], proof| {
        let peer = Caller::mesh(peer);
        granted(own, OverrideOrigin::With(peer, through), Some(proof))
    };
    let by_other = std::slice::from_ref(&other);
    assert_eq!(
        granted_by("web", &other, &[], &proof),
        Ok(()),
        "one hop later"
    );
    assert_eq!(
        granted_by("cart", &web, by_other, &proof),
        Ok(()),
        "and two"
    );
    // All that it comes through must.
    let ended = Err(Ignored::Forwarder);
    assert_eq!(granted_by("other", &other, &[], &proof), ended);
    let twice = [other.clone(), other.clone()];
    assert_eq!(granted_by("cart", &web, &twice, &proof), ended);
    assert_eq!(granted_by("cart", &other, by_other, &proof), ended);
    let later = [web.clone(), other.clone()];
    assert_eq!(granted_by("cart", &web, &later, &proof), ended);
    // From outside, the first of them passes it on.
    let outside = Proof::Token([7; 32]);
    assert_eq!(granted_by("web", &other, &[], &outside), ended);
    let wrong = Proof::Both([8; 32], other.clone());
    assert_eq!(granted_by("web", &other, &[], &wrong), Err(Ignored::Right));
}

#[test]
fn listed_pods_match_as_peers_accounts_match_further_back() {
    let (qa, web, own) = (account("qa"), account("web"), account("cart"));
    let pods = |uid: &str| vec![Source::pods([uid])];
    let offered = [Override {
        sources: pods("qa-1"),
        forwarders: [pods("web-1"), sources(&["cart"])].concat(),
        ..offered().remove(0)
    }];
    let proof = Proof::Account(qa.clone());
    let request = |id, pod, through: &[SpiffeId]| {
        let peer = Caller::Mesh { id, pod };
        let target = service("catalog-staging");
        let request = OverrideOrigin::With(peer, through);
        grant(
            &offered,
            &target,
            Caller::mesh(&own),
            request,
            Some(&proof),
            0,
        )
    };
    assert_eq!(request(&qa, Some("qa-1"), &[]), Ok(()));
    assert_eq!(request(&qa, Some("qa-2"), &[]), Err(Ignored::Right));
    assert_eq!(request(&qa, None, &[]), Err(Ignored::Right));
    // The pod of a forwarder shows nothing of which account chose first.
    assert_eq!(request(&web, Some("qa-1"), &[]), Err(Ignored::Right));
    let through = std::slice::from_ref(&qa);
    assert_eq!(request(&web, Some("web-1"), through), Err(Ignored::Right));
    assert_eq!(request(&qa, Some("qa-1"), through), Err(Ignored::Right));
}

#[test]
fn only_services_that_are_offered_can_be_asked_for() {
    let own = account("qa");
    let requested = |overrides: &[Override], target: &ServiceId| {
        grant(
            overrides,
            target,
            Caller::mesh(&own),
            OverrideOrigin::Here,
            None,
            0,
        )
    };
    assert_eq!(
        requested(&offered(), &service("payments")),
        Err(Ignored::Target)
    );
    let elsewhere = ServiceId::new("other", "catalog-staging");
    assert_eq!(requested(&offered(), &elsewhere), Err(Ignored::Target));
    assert_eq!(
        requested(&[], &service("catalog-staging")),
        Err(Ignored::Target)
    );
    // One of several is enough, whatever the others say.
    let mut all = offered();
    all[0].sources.clear();
    all.extend(offered());
    assert_eq!(requested(&all, &service("catalog-staging")), Ok(()));
}

#[test]
fn proofs_round_trip_and_are_hidden_from_debug() {
    let both = Proof::Both([0xab; 32], account("qa"));
    for proof in [
        Proof::Token([0xab; 32]),
        Proof::Account(account("qa")),
        both.clone(),
    ] {
        assert_eq!(Proof::parse(proof.write().as_bytes()), Some(proof));
    }
    assert_eq!(format!("{:?}", Proof::Token([0xab; 32])), "Token");
    assert!(!format!("{both:?}").contains("ab"));
    let (hash, upper) = ("ab".repeat(32), "AB".repeat(32));
    let bad = [
        format!("{hash}+"),
        format!("{hash}+{hash}"),
        format!("{}+{hash}", account("qa")),
    ];
    let bad = bad.iter().map(String::as_str);
    let short = ["", "ab", upper.as_str(), "spiffe://", "http://a/b"];
    for value in short.into_iter().chain(bad) {
        assert_eq!(Proof::parse(value.as_bytes()), None, "{value:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_read_otherwise_than_they_are_written(
        value in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        if let Ok(header) = parse(&value, "home") {
            let text = header.write("home");
            let again = parse(text.as_bytes(), "elsewhere").unwrap();
            prop_assert_eq!(header.iter().count(), again.iter().count());
        }
    }
}
