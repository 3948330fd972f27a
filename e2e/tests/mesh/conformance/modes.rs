//! Modes switched while everything runs: row E14.

use e2e::{
    conformance::Record,
    harness::{Namespace, Outcome},
};

use super::super::{
    additive::{allowed, group, refused, target},
    url,
};

#[test]
fn deny_and_open_change_places_and_nothing_restarts() -> Outcome {
    let mut row = Record::begin("E14")?;
    let ns = Namespace::meshed("modes")?;
    ns.run(&["server", "one"])?;
    let (one, server) = (ns.pod("one")?, ns.pod("server")?);
    let address = url("server", 8080, "/x");
    for _ in 0..2 {
        ns.annotate("weft.dev/access", Some("deny"))?;
        refused(&mut row, &one, &address, "GET")?;
        ns.annotate("weft.dev/access", Some("open"))?;
        allowed(&mut row, &one, &address, "GET")?;
    }
    let routes = group("any", "[{name: any, pathRegex: '.*', methods: [GET]}]");
    let grant = target("one", "one", "[{kind: HTTPRouteGroup, name: any}]");
    ns.apply(&format!("{routes}{grant}"))?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    // The call that the target does not list shows that deny holds by now.
    refused(&mut row, &one, &address, "POST")?;
    allowed(&mut row, &one, &address, "GET")?;
    for (before, app) in [(&one, "one"), (&server, "server")] {
        let after = ns.pod(app)?;
        assert_eq!(before.name, after.name, "the pod was replaced");
        assert_eq!(after.restarts(), 0, "{app}");
        row.saw(format!("restarts of {app}"), after.restarts());
    }
    row.passed()?;
    Ok(())
}
