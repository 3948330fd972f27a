//! Settings of the agent, and which files it takes for network namespaces.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::capture::rules::Forwarded;

fn read(pairs: &[(&str, &str)]) -> Result<AgentSettings, BadEnv> {
    AgentSettings::read(EnvReader::from_map(pairs.iter().copied()))
}

#[test]
fn agent_without_node_addresses_does_not_start() {
    let node = ("WEFT_NODE_NAME", "node-2");
    for hosts in ["", ",", "node-2", "10.0.0.300"] {
        let error = read(&[node, ("WEFT_HOST_IPS", hosts)]).unwrap_err();
        assert!(error.to_string().contains("WEFT_HOST_IPS"), "{error}");
    }
    assert!(read(&[("WEFT_HOST_IPS", "10.0.0.3")]).is_err(), "no node");
    let settings = read(&[node, ("WEFT_HOST_IPS", "10.0.0.3,fd00::3")]).unwrap();
    assert_eq!(settings.hosts.len(), 2);
    assert_eq!(settings.folder, PathBuf::from(NETNS_DIR));
}

#[test]
fn odd_files_are_no_namespaces_and_hold_nothing_up() {
    let own = fs::metadata("/proc/self/ns/net").unwrap();
    let own = (own.dev(), own.ino());
    let folder = std::env::temp_dir().join(format!("weft-netns-{}", std::process::id()));
    fs::create_dir_all(folder.join("folder")).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    symlink("/proc/self/ns/net", folder.join("link")).unwrap();
    symlink("/nowhere", folder.join("loose-link")).unwrap();
    let pipe = Command::new("mkfifo").arg(folder.join("pipe")).status();
    assert!(pipe.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    let listed = names(&folder).unwrap();
    assert_eq!(listed.len(), 6, "{listed:?}");
    for name in &listed {
        let opened = open(&folder.join(name), own).unwrap();
        assert!(opened.is_none(), "{name:?}");
    }
    assert!(open(&folder.join("gone"), own).unwrap().is_none());
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn captured_pod_that_requests_again_waits_behind_new_ones() {
    let environment = [("WEFT_NODE_NAME", "node-2"), ("WEFT_HOST_IPS", "10.0.0.3")];
    let mut agent = Agent::new(read(&environment).unwrap(), Captures::default()).unwrap();
    let both = ["a-again", "b-new"].map(OsString::from);
    let now = Instant::now();
    agent.rounds.listed(&BTreeSet::from(both.clone()), now);
    let visits = [Visit::Present(Forwarded::Pass), Visit::NoListener];
    for (name, visit) in both.into_iter().zip(visits) {
        assert_eq!(agent.rounds.next(now).as_ref(), Some(&name));
        let inode = 1;
        agent.visited(&Visited { name, inode, visit });
    }
    let next = agent.rounds.next(now + Duration::from_secs(1));
    assert_eq!(next.as_deref(), Some(OsStr::new("b-new")));
}

#[test]
fn every_outcome_but_no_listener_is_counted() {
    let labels = |visit: Visit| CaptureLabels::of(&visit).map(|of| (of.outcome, of.reason));
    let reason = String::new();
    assert_eq!(labels(Visit::NoListener), None);
    let why = Refused::HostNetwork;
    let refused = Visit::Refused { why, reason };
    assert_eq!(labels(refused), Some(("refused", "host-network")));
    let mut registry = Registry::default();
    let captures = Captures::register(&mut registry);
    let captured = CaptureLabels {
        outcome: "captured",
        reason: "",
    };
    captures.0.get_or_create(&captured).inc();
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    let line = "weft_node_captures_total{outcome=\"captured\",reason=\"\"} 1";
    assert!(page.contains(line), "{page}");
}
