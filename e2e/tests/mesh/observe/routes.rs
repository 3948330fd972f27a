//! Routes by name, from the annotation of a Service to what `weft routes` prints.

use std::collections::BTreeSet;

use anyhow::ensure;
use e2e::harness::{Namespace, Outcome, eventually};

use super::super::url;
use super::{SHOWN, weft};

/// Names of the routes that served calls.
fn served(ns: &Namespace) -> anyhow::Result<BTreeSet<String>> {
    let args = ["routes", "svc/cart", "-t", "5m", "-o", "json"];
    let graph = weft(ns, &args)?.with_status(0)?.json()?;
    let nodes = graph["nodes"].as_array().into_iter().flatten();
    let routes = nodes.flat_map(|node| node["routes"].as_array().into_iter().flatten());
    let served = routes.filter(|route| route["requests"].as_u64() > Some(0));
    let names = served.filter_map(|route| route["route"].as_str());
    Ok(names.map(str::to_owned).collect())
}

#[test]
fn routes_that_a_service_names_are_counted_and_a_missing_group_is_an_event() -> Outcome {
    let ns = Namespace::meshed("eyes-routes")?;
    ns.run(&["web", "cart"])?;
    ns.apply(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
         metadata: {name: items}\nspec:\n  matches:\n  \
         - {name: one, methods: [GET], pathRegex: '/items/[0-9]+'}\n  \
         - {name: all, methods: [GET], pathRegex: '/items'}\n",
    )?;
    let web = ns.pod("web")?;
    let calls = || -> anyhow::Result<()> {
        for path in ["/items/7", "/items", "/else"] {
            web.report(&url("cart", 8080, path), &[])?;
        }
        Ok(())
    };
    calls()?;
    ns.kubectl(&["annotate", "service", "cart", "weft.dev/routes=gone,items"])?;
    eventually(SHOWN, "calls have names", || {
        calls()?;
        let served = served(&ns)?;
        let named = served
            .iter()
            .map(String::as_str)
            .eq(["", "items/all", "items/one"]);
        ensure!(named, "{served:?}");
        Ok(())
    })?;
    eventually(SHOWN, "the missing group is told", || {
        let events = ns.json(&["get", "events"])?.to_string();
        let has_event = events.contains("RefNotFound") && events.contains("HTTPRouteGroup gone");
        ensure!(has_event, "{events}");
        Ok(())
    })?;
    Ok(())
}
