//! Redirection by the kernel: two network namespaces, a pod and a peer, joined by a virtual cable,
//! with the real rules in the pod. Also endpoints that fail in the ways in which a kernel lets
//! them fail.
//!
//! Needs root and fails without it. Nothing outside the namespaces is touched.
//!
//! Claims: attack-117, mesh-14, mesh-15

// Helpers of tests are tests to us; clippy sees only functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "netns/agent.rs"]
mod agent;
#[path = "path/answers.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod answers;
#[path = "netns/crowd.rs"]
mod crowd;
#[path = "netns/egress.rs"]
mod egress;
#[path = "netns/fleet.rs"]
mod fleet;
#[path = "netns/floods.rs"]
mod floods;
#[path = "netns/grpc.rs"]
mod grpc;
#[path = "netns/http2.rs"]
mod http2;
#[path = "netns/lost_node.rs"]
mod lost_node;
#[path = "netns/outages.rs"]
mod outages;
#[path = "netns/processes.rs"]
mod processes;
#[path = "netns/roles.rs"]
mod roles;
#[path = "netns/sidecars.rs"]
mod sidecars;
#[path = "netns/spoofs.rs"]
mod spoofs;
#[path = "netns/stalls.rs"]
mod stalls;
#[path = "netns/standstill.rs"]
mod standstill;
#[path = "support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;
#[path = "netns/testbed.rs"]
mod testbed;
#[path = "netns/world.rs"]
mod world;

use testbed::{Testbed, Who};

// The proxy's own allocator, which measures its heap: this binary plays proxies too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a test process does when it is started inside a namespace.
#[test]
fn helper_process_plays_its_role() {
    roles::play();
}

#[test]
fn outbound_ipv4_reaches_the_proxy_with_its_original_destination() {
    let testbed = Testbed::captured("out4", &[]);
    let met = testbed.pod().connect(Who::App, "10.77.0.1:8000");
    assert_eq!(met.name, "outbound");
    assert_eq!(met.original.as_deref(), Some("10.77.0.1:8000"));
}

#[test]
fn outbound_ipv6_reaches_the_proxy_with_its_original_destination() {
    let testbed = Testbed::captured("out6", &[]);
    let met = testbed.pod().connect(Who::App, "[fd77::1]:8000");
    assert_eq!(met.name, "outbound");
    assert_eq!(met.original.as_deref(), Some("[fd77::1]:8000"));
}

#[test]
fn inbound_ipv4_and_ipv6_keep_original_destination() {
    let testbed = Testbed::captured("in", &[]);
    for to in ["10.77.0.2:8080", "[fd77::2]:8080", "10.77.0.2:4242"] {
        let met = testbed.peer().connect(Who::App, to);
        assert_eq!(met.name, "inbound", "{to}");
        assert_eq!(met.original.as_deref(), Some(to));
    }
}

#[test]
fn without_rules_nothing_is_redirected() {
    let testbed = Testbed::bare("bare");
    assert_eq!(
        testbed.pod().connect(Who::App, "10.77.0.1:8000").name,
        "peer"
    );
    assert_eq!(
        testbed.pod().connect(Who::App, "[fd77::1]:8000").name,
        "peer"
    );
    assert_eq!(
        testbed.peer().connect(Who::App, "10.77.0.2:8080").name,
        "app"
    );
}

#[test]
fn only_proxy_user_and_group_escape_capture() {
    let testbed = Testbed::captured("exempt", &[]);
    for to in ["10.77.0.1:8000", "[fd77::1]:8000"] {
        assert_eq!(
            testbed.pod().connect(Who::Ids(15190, 15190), to).name,
            "peer"
        );
        assert_eq!(testbed.pod().connect(Who::Ids(15190, 100), to).name, "peer");
        assert_eq!(testbed.pod().connect(Who::Ids(100, 15190), to).name, "peer");
        assert_eq!(
            testbed.pod().connect(Who::Ids(15191, 15191), to).name,
            "outbound"
        );
        assert_eq!(
            testbed.pod().connect(Who::Ids(1000, 1000), to).name,
            "outbound"
        );
    }
}

#[test]
fn loopback_and_the_pods_own_address_stay_direct() {
    let testbed = Testbed::captured("lo", &[]);
    for to in [
        "127.0.0.1:8080",
        "[::1]:8080",
        "10.77.0.2:8080",
        "[fd77::2]:8080",
    ] {
        assert_eq!(
            testbed.pod().connect(Who::App, to).name,
            "app",
            "{to} by the application"
        );
        let by_proxy = testbed.pod().connect(Who::Ids(15190, 15190), to);
        assert_eq!(by_proxy.name, "app", "{to} by the proxy, as in a self-call");
    }
}

#[test]
fn proxy_ports_are_reached_directly_without_original_destination() {
    let testbed = Testbed::captured("own", &[]);
    for (port, name) in [(15106, "inbound"), (15108, "mesh"), (15190, "admin")] {
        for to in [format!("10.77.0.2:{port}"), format!("[fd77::2]:{port}")] {
            let met = testbed.peer().connect(Who::App, &to);
            assert_eq!((met.name.as_str(), met.original), (name, None), "{to}");
        }
    }
    // The outbound listener is on loopback only, so no peer outside the pod can use it.
    let met = testbed.peer().try_connect(Who::App, "10.77.0.2:15101");
    assert!(met.unwrap_err().contains("refused"));
}

#[test]
fn forwarded_packets_pass_and_the_pods_own_are_redirected() {
    let (testbed, behind) = Testbed::forwarding("forward");
    let peer = testbed.peer();
    for to in ["10.78.0.2:8080", "[fd78::2]:8080"] {
        assert_eq!(peer.connect(Who::App, to).name, "behind", "{to}");
    }
    for to in ["10.77.0.1:8000", "[fd77::1]:8000"] {
        assert_eq!(behind.connect(Who::App, to).name, "peer", "{to}");
    }
    // No address of the pod is a way around, at whichever device it arrives.
    for to in ["10.77.0.2:8080", "10.78.0.1:8080", "[fd77::2]:8080"] {
        for from in [peer, &behind] {
            assert_eq!(from.connect(Who::App, to).name, "inbound", "{to}");
        }
    }
    let link_local = format!("[fe80::77%{}]:8080", peer.index("eth0"));
    for to in ["10.79.0.5:8080", "[fd79::5]:8080", link_local.as_str()] {
        assert_eq!(peer.connect(Who::App, to).name, "inbound", "{to}");
    }
}

#[test]
fn skipped_ports_and_nets_are_left_alone() {
    let testbed = Testbed::captured(
        "skip",
        &[
            "--skip-outbound-ports=25,8000-8001",
            "--skip-outbound-cidrs=198.51.100.0/24,2001:db8:77::/48",
            "--skip-inbound-ports=8080",
        ],
    );
    let pod = testbed.pod();
    for to in ["10.77.0.1:8000", "10.77.0.1:8001", "[fd77::1]:8000"] {
        assert_eq!(pod.connect(Who::App, to).name, "peer", "{to}");
    }
    for to in ["10.77.0.1:7999", "10.77.0.1:8002", "[fd77::1]:8002"] {
        assert_eq!(pod.connect(Who::App, to).name, "outbound", "{to}");
    }
    for to in ["198.51.100.7:9000", "[2001:db8:77::7]:9000"] {
        assert_eq!(pod.connect(Who::App, to).name, "peer", "{to}");
    }
    for to in ["198.51.101.7:9000", "[2001:db8:78::7]:9000"] {
        assert_eq!(pod.connect(Who::App, to).name, "outbound", "{to}");
    }
    for (to, name) in [
        ("10.77.0.2:8080", "app"),
        ("[fd77::2]:8080", "app"),
        ("10.77.0.2:8081", "inbound"),
    ] {
        assert_eq!(testbed.peer().connect(Who::App, to).name, name, "{to}");
    }
}

#[test]
fn a_second_run_replaces_the_rules_of_the_first() {
    let testbed = Testbed::captured("twice", &["--skip-outbound-ports=8000"]);
    assert_eq!(
        testbed.pod().connect(Who::App, "10.77.0.1:8000").name,
        "peer"
    );

    testbed
        .pod()
        .capture(&["--skip-outbound-ports=8001"])
        .unwrap();
    assert_eq!(
        testbed.pod().connect(Who::App, "10.77.0.1:8000").name,
        "outbound"
    );
    assert_eq!(
        testbed.pod().connect(Who::App, "10.77.0.1:8001").name,
        "peer"
    );
    let once = testbed.pod().ruleset();

    testbed
        .pod()
        .capture(&["--skip-outbound-ports=8001"])
        .unwrap();
    assert_eq!(testbed.pod().ruleset(), once, "the same rules, once");
    assert_eq!(once.matches("table ").count(), 1);
}

#[test]
fn check_proves_both_families_right_after_writing() {
    let testbed = Testbed::unoccupied("check");
    let output = testbed.pod().capture(&["--check"]).unwrap();
    assert!(
        output.contains("192.0.2.1:9") && output.contains("[2001:db8::1]:9"),
        "{output}"
    );
}

// Claims: C9
#[test]
fn capture_check_proves_service_address_arrives_unchanged() {
    let testbed = Testbed::unoccupied("checksvc");
    let api = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];
    let output = testbed.pod().capture_with(&api, &["--check"]).unwrap();
    assert!(output.contains("connection to 10.96.0.1:443"), "{output}");
    // What is skipped is nothing of the mesh's.
    let skipped = ["--check", "--skip-outbound-ports=443"];
    let output = testbed.pod().capture_with(&api, &skipped).unwrap();
    assert!(!output.contains("10.96.0.1"), "{output}");
    // A name is not a Service's address.
    let named = [("KUBERNETES_SERVICE_HOST", "api.example"), api[1]];
    let output = testbed.pod().capture_with(&named, &["--check"]).unwrap();
    assert!(!output.contains(":443"), "{output}");
}

#[test]
fn check_fails_where_rules_are_missing() {
    let testbed = Testbed::unoccupied("unchecked");
    let output = testbed.pod().capture(&["--check-only"]).unwrap_err();
    assert!(
        output.contains("did not arrive at 127.0.0.1:15101"),
        "{output}"
    );

    testbed.pod().capture(&[]).unwrap();
    testbed.pod().capture(&["--check-only"]).unwrap();
}

#[test]
fn check_by_the_exempt_user_fails_and_says_so() {
    let testbed = Testbed::unoccupied("checkuid");
    testbed.pod().capture(&[]).unwrap();
    let output = testbed
        .pod()
        .capture_as(Who::Ids(15190, 15190), &["--check-only"])
        .unwrap_err();
    assert!(output.contains("exempt"), "{output}");
}

#[test]
fn check_looks_beside_what_the_skip_lists_cover() {
    let testbed = Testbed::unoccupied("checkskip");
    let output = testbed.pod().capture(&[
        "--check",
        "--skip-outbound-ports=1-100",
        "--skip-outbound-cidrs=192.0.2.0/24,::/0",
    ]);
    let output = output.unwrap();
    assert!(output.contains("198.51.100.1:101"), "{output}");
    assert!(
        output.contains("IPv6: not proven, the skip lists cover everything"),
        "{output}"
    );
}

#[test]
fn namespace_without_ipv6_is_captured_and_proven_for_ipv4() {
    let testbed = Testbed::without_ipv6("no6");
    let output = testbed.pod().capture(&["--check"]).unwrap();
    assert!(
        output.contains("192.0.2.1:9") && output.contains("IPv6: not proven"),
        "{output}"
    );
}

#[test]
fn namespace_without_ipv4_is_captured_and_proven_for_ipv6() {
    let testbed = Testbed::without_ipv4("no4");
    let output = testbed.pod().capture(&["--check"]).unwrap();
    assert!(
        output.contains("[2001:db8::1]:9") && output.contains("IPv4: not proven"),
        "{output}"
    );
}

#[test]
fn without_net_admin_the_error_names_the_way_out() {
    let testbed = Testbed::unoccupied("unpriv");
    let output = testbed
        .pod()
        .capture_as(Who::Ids(1000, 1000), &[])
        .unwrap_err();
    assert!(output.contains("NET_ADMIN"), "{output}");
}

#[test]
fn net_admin_is_the_only_capability_that_capture_needs() {
    let testbed = Testbed::unoccupied("caps");
    testbed.pod().capture_as(Who::Init, &["--check"]).unwrap();
}

#[test]
fn an_open_connection_survives_a_second_run() {
    let testbed = Testbed::captured("open", &[]);
    let mut connection = testbed.pod().hold("10.77.0.1:8000");
    assert_eq!(connection.greeting.name, "outbound");
    testbed.pod().capture(&[]).unwrap();
    assert_eq!(connection.echo("still here"), "still here");
}

#[test]
fn watched_connection_closes_ten_seconds_after_peer_vanishes() {
    let testbed = Testbed::bare("watch");
    // In the middle of a request, and between two.
    let watched = ["hello", ""].map(|question| testbed.pod().watch("10.77.0.1:8000", question));
    testbed.peer().unplug();
    let waits = std::thread::scope(|scope| {
        watched
            .map(|watch| scope.spawn(|| watch.failed_after()))
            .map(|waiting| waiting.join().unwrap())
    });
    for waited in waits {
        assert!((9..=10).contains(&waited), "{waits:?} s");
    }
}
