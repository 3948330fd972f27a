//! What a proxy logs changes while it runs, as its controller says.
//!
//! In a process of its own, because a process has one log.

use std::sync::Arc;

use policy::access_log::AccessLog;
use prometheus_client::registry::Registry;
use tracing::Level;
use weft_proxy::{Metrics, Store, Telemetry};
use wire::v1;
use wire::v1::resource::Content;

fn telemetry(filter: &str) -> v1::Resource {
    wire::version::stamp(v1::Resource {
        name: wire::names::TELEMETRY.to_owned(),
        version: String::new(),
        content: Some(Content::Telemetry(v1::Telemetry {
            log_filter: filter.to_owned(),
            ..v1::Telemetry::default()
        })),
    })
}

/// What is logged of the proxy, and of a module beside it.
fn logged() -> (bool, bool, bool) {
    (
        tracing::enabled!(target: "weft_proxy", Level::DEBUG),
        tracing::enabled!(target: "weft_proxy", Level::INFO),
        tracing::enabled!(target: "h2", Level::DEBUG),
    )
}

#[test]
fn the_log_follows_the_controller_and_goes_back_when_nothing_is_said_any_more() {
    runtime::log::init("info", runtime::log::Format::Json).unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let store = Store::new(Arc::new(Telemetry::new(metrics, AccessLog::OFF)));
    let set = |filter: &str| {
        store.apply(v1::Batch {
            set: vec![telemetry(filter)],
            ..v1::Batch::default()
        })
    };
    assert_eq!(logged(), (false, true, false), "as it was started");

    assert!(set("info,weft_proxy=debug").is_empty());
    assert_eq!(logged(), (true, true, false));

    // What cannot be used is refused with its field, and what was in force stays.
    let long = "m".repeat(300);
    for bad in ["loud", "weft_proxy[{path=(a+)+}]=trace", &long] {
        let nacks = set(bad);
        assert_eq!(nacks.len(), 1, "{bad}");
        assert!(nacks[0].reason.starts_with("log_filter "), "{nacks:?}");
        assert_eq!(logged(), (true, true, false), "{bad}");
    }

    assert!(set("off").is_empty());
    assert_eq!(logged(), (false, false, false));
    assert!(set("").is_empty());
    assert_eq!(logged(), (false, true, false), "the default");

    assert!(set("debug").is_empty());
    assert_eq!(logged(), (true, true, true));
    let nacks = store.apply(v1::Batch {
        remove: vec![wire::names::TELEMETRY.to_owned()],
        ..v1::Batch::default()
    });
    assert!(nacks.is_empty());
    assert_eq!(logged(), (false, true, false), "as it was started");
}
