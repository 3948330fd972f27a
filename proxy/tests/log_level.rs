//! The controller changes a proxy's log level while the proxy runs.
//!
//! In a process of its own, because a process has one log.
//!
//! Claims: observe-90

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use policy::access_log::AccessLog;
use policy::terminal::acts_upon;
use prometheus_client::registry::Registry;
use tracing::Level;
use weft_proxy::{Metrics, Store, Telemetry};
use wire::v1;
use wire::v1::resource::Content;

/// The log of this process, which one test has at a time.
static LOG: LazyLock<Mutex<()>> = LazyLock::new(|| {
    runtime::log::init("info", runtime::log::Format::Json, acts_upon).unwrap();
    Mutex::default()
});

fn workload() -> Store {
    let metrics = Metrics::register(&mut Registry::default());
    Store::new(Arc::new(Telemetry::new(metrics, AccessLog::OFF)))
}

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

// Claims: observability-18
#[test]
fn log_filter_follows_controller_and_reverts_when_removed() {
    let _alone = LOG.lock();
    let store = workload();
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

#[test]
fn log_filter_unites_all_workloads_of_process() {
    let _alone = LOG.lock();
    let set = |store: &Store, filter: &str| {
        let nacks = store.apply(v1::Batch {
            set: vec![telemetry(filter)],
            ..v1::Batch::default()
        });
        assert!(nacks.is_empty(), "{nacks:?}");
    };
    let forget = |store: &Store| {
        let nacks = store.apply(v1::Batch {
            remove: vec![wire::names::TELEMETRY.to_owned()],
            ..v1::Batch::default()
        });
        assert!(nacks.is_empty(), "{nacks:?}");
    };
    let (first, second) = (workload(), workload());

    set(&first, "info,weft_proxy=debug");
    for less in ["off", "warn", "info"] {
        set(&second, less);
        assert_eq!(logged(), (true, true, false), "{less}");
    }
    set(&second, "off,h2=debug");
    assert_eq!(logged(), (true, true, true), "what each of them asks for");
    forget(&second);
    assert_eq!(logged(), (true, true, false), "the other's holds");

    set(&first, "off");
    assert_eq!(logged(), (false, true, false), "no line names one");
    set(&second, "off");
    assert_eq!(logged(), (false, false, false), "none asks for anything");

    // A new one is not silenced by earlier ones, and is not logged once it is gone.
    let third = workload();
    assert_eq!(logged(), (false, true, false));
    set(&third, "debug");
    assert_eq!(logged(), (true, true, true));
    drop(third);
    assert_eq!(logged(), (false, false, false));
    drop((first, second));
    assert_eq!(logged(), (false, true, false), "as it was started");
}
