//! Routes by name, from the annotation of a Service to what `weft routes` prints.
//!
//! Claims: observe-138

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Outcome, eventually};

use super::super::url;
use super::{SHOWN, weft};

/// Calls by the route that nothing else calls, once routes have names.
const CALLS: u64 = 20;

/// The routes that served calls, by name, and how many.
fn served(ns: &Namespace) -> anyhow::Result<BTreeMap<String, u64>> {
    let args = ["routes", "svc/cart", "-t", "5m", "-o", "json"];
    let graph = weft(ns, &args)?.with_status(0)?.json()?;
    let nodes = graph["nodes"].as_array().into_iter().flatten();
    let routes = nodes.flat_map(|node| node["routes"].as_array().into_iter().flatten());
    let mut served: BTreeMap<String, u64> = BTreeMap::new();
    for route in routes {
        let name = route["route"].as_str().context("no name")?;
        let calls = route["requests"].as_u64().context("no calls")?;
        *served.entry(name.to_owned()).or_default() += calls;
    }
    served.retain(|_, calls| *calls > 0);
    Ok(served)
}

#[test]
fn named_routes_are_counted_and_missing_group_is_event() -> Outcome {
    let ns = Namespace::meshed("eyes-routes")?;
    ns.run(&["web", "cart"])?;
    ns.apply(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
         metadata: {name: items}\nspec:\n  matches:\n  \
         - {name: one, methods: [GET], pathRegex: '/items/[0-9]+'}\n  \
         - {name: all, methods: [GET], pathRegex: '/items'}\n",
    )?;
    let web = ns.pod("web")?;
    let mut tried = 0_u64;
    let mut call_one = || -> anyhow::Result<()> {
        tried += 1;
        web.report(&url("cart", 8080, "/items/7"), &[]).map(drop)
    };
    call_one()?;
    ns.kubectl(&["annotate", "service", "cart", "weft.dev/routes=gone,items"])?;
    // The called side names them, which has one pod: its requests from here on have a name.
    eventually(SHOWN, "calls have names", || {
        call_one()?;
        let served = served(&ns)?;
        ensure!(served.contains_key("items/one"), "{served:?}");
        Ok(())
    })?;
    for path in ["/items", "/else"] {
        let seen = web.get(&url("cart", 8080, path), &["-n", &CALLS.to_string()])?;
        assert_eq!(seen.answered, CALLS, "{seen:?}");
    }
    eventually(SHOWN, "every call is counted once", || {
        let served = served(&ns)?;
        let named = served.keys().map(String::as_str);
        ensure!(named.eq(["", "items/all", "items/one"]), "{served:?}");
        ensure!(served["items/all"] == CALLS, "{served:?}");
        ensure!((1..=tried).contains(&served["items/one"]), "{served:?}");
        ensure!(served[""] >= CALLS, "{served:?}");
        Ok(())
    })?;
    eventually(SHOWN, "the missing group is reported", || {
        let events = ns.json(&["get", "events"])?.to_string();
        let has_event = events.contains("RefNotFound") && events.contains("HTTPRouteGroup gone");
        ensure!(has_event, "{events}");
        Ok(())
    })?;
    Ok(())
}
