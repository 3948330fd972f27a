//! Every row by name. A row that is not in this table cannot be recorded, and one
//! that is in it and was not recorded fails `make conformance`.

/// Where a row is proven, the lowest place where it can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// The whole mesh in a cluster, beside other tests.
    Mesh,
    /// The whole mesh, with nothing beside it, because it is timed.
    Alone,
    /// The whole mesh driven by a real progressive delivery controller.
    Canary,
    /// In process: `cargo test --workspace TARGET -- TEST`.
    InProcess {
        target: &'static [&'static str],
        test: &'static str,
    },
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub id: &'static str,
    /// What is claimed, in the user's words.
    pub what: &'static str,
    pub ring: Ring,
    /// Names of the tests' records that together make the row; `""` alone for one.
    pub parts: &'static [&'static str],
}

/// The row with this id.
pub fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id == id)
}

const ONE: &[&str] = &[""];

const fn mesh(id: &'static str, what: &'static str) -> Row {
    Row {
        id,
        what,
        ring: Ring::Mesh,
        parts: ONE,
    }
}

const fn canary(id: &'static str, what: &'static str) -> Row {
    Row {
        id,
        what,
        ring: Ring::Canary,
        parts: ONE,
    }
}

const fn in_process(
    id: &'static str,
    what: &'static str,
    target: &'static [&'static str],
    test: &'static str,
) -> Row {
    let ring = Ring::InProcess { target, test };
    Row {
        id,
        what,
        ring,
        parts: ONE,
    }
}

/// All rows, in the order of the table.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    mesh("TA-01", "the API server knows TrafficTarget with its plural, singular and short name"),
    mesh("TA-02", "the application runs: three service accounts, three ready Deployments, three NodePort Services on 9091"),
    mesh("TA-03", "in deny and without a TrafficTarget a call is refused"),
    mesh("TA-04", "a TCPRoute v1alpha4 with no ports and a TrafficTarget v1alpha3 are stored and read back as written"),
    mesh("TA-05", "the same call is answered, and the callee knows who called"),
    mesh("TA-06", "both objects are deleted and gone"),
    mesh("TA-07", "the same call is refused again"),
    mesh("SP-01", "the API server knows HTTPRouteGroup with its plural, singular and short name"),
    mesh("SP-02", "the application runs, as in TA-02"),
    mesh("SP-03", "an HTTPRouteGroup with a path and a TrafficTarget on it are stored and read back as written"),
    mesh("SP-04", "the listed path is answered, another is refused"),
    mesh("SP-05", "the HTTPRouteGroup now lists a method instead, and is read back as written"),
    mesh("SP-06", "the listed method is answered, another is refused"),
    mesh("TS-01", "the API server knows TrafficSplit with its plural, singular and short name"),
    mesh("TS-02", "the application runs: four Services, three ready Deployments, one root over both backends"),
    mesh("TS-03", "without a split, 50 calls to the root reach both backends"),
    mesh("TS-04", "a TrafficSplit with weights 1 and 0 is stored and read back as written"),
    mesh("TS-05", "50 of 50 calls reach the first backend"),
    mesh("TS-06", "the weights become 0 and 1"),
    mesh("TS-07", "50 of 50 calls reach the second backend"),
    mesh("TS-08", "the weights become 75 and 25"),
    mesh("TS-09", "of 50 calls more reach the first backend"),
    mesh("TS-10", "the weights become 25 and 75"),
    mesh("TS-11", "of 50 calls more reach the second backend"),
    mesh("E1", "two targets with overlapping routes: each source has its own methods"),
    mesh("E2", "a rule without matches means every match of its group"),
    mesh("E3", "empty sources or rules are refused; stored before validation existed, they allow nothing"),
    mesh("E4", "the ports of one target never meet the routes or sources of another"),
    mesh("E5", "a TCPRoute admits HTTP; an HTTPRouteGroup admits no raw TCP"),
    in_process("E6", "with TCP 8300 to 8302 and UDP 8301 and 8302 in its routes, a workload gets no UDP on 8300; judged by an evaluator of NetworkPolicy semantics",
        &["--lib"], "network_policy::tests::e6_udp_8300_is_blocked_beside_routed_tcp_8300"),
    mesh("E7", "the port of an old target (v1alpha2) holds, also when the target is read and written in v1alpha3 and v1alpha4, which have none"),
    mesh("E8", "weights 1 and 500m of a split in v1alpha1 are two to one"),
    mesh("E9", "a root that is its own backend, 90 to 10; a split with matches that a request fits, and one that it does not"),
    mesh("E10", "ports 8080 and 9090, one backend with another targetPort; a backend that loses the root's port gets nothing there and an Event says so"),
    mesh("E11", "a split before its backend's Service exists, and a Service that is deleted while it serves"),
    mesh("E12", "a root whose selector overlaps its backends; a root without a selector"),
    mesh("E13", "a backend called by its own name is not split"),
    mesh("E14", "deny and open switched at run time, in the order deny, open, deny, open, targets, deny; nothing restarts"),
    mesh("E15", "a target in the caller's namespace grants nothing elsewhere"),
    Row { id: "E16", what: "when a target is deleted, the next request of a kept connection gets 403 and open TCP closes, within 2 s", ring: Ring::Alone, parts: ONE },
    mesh("E17", "headers written as a map and as a list mean the same, and come back as written"),
    Row { id: "E18", what: "each kind is created in each version and read, listed, updated and watched in each other", ring: Ring::Mesh,
        parts: &["TrafficTarget", "HTTPRouteGroup", "TCPRoute", "TrafficSplit"] },
    in_process("E19", "the objects that Flagger and Argo Rollouts write, over a whole canary, in each version: weights never reset, nothing added or moved",
        &["--test", "clients"], "flagger_and_argo_weights_keep_text_in_every_version"),
    Row { id: "E20", what: "traffic metrics: list, get, edges in both directions, an idle object, the backends of a split; no NaN, no 500", ring: Ring::Mesh, parts: &["counts", "split"] },
    mesh("E21", "probes of kinds http, https, tcp, grpc and exec, and of two containers, mean what they mean without a mesh"),
    Row { id: "E22", what: "peers of a headless StatefulSet by DNS name; an application that calls itself by pod address and by Service", ring: Ring::Mesh, parts: &["peers", "self"] },
    canary("FL-01", "Flagger promotes a good version through TrafficSplits"),
    canary("FL-02", "Flagger rolls a version back that fails half of its requests"),
    canary("FL-03", "Flagger promotes a good version through an HTTPRoute whose parent is a Service"),
    canary("FL-04", "Flagger rolls a version back that fails half of its requests, by the same"),
    canary("AR-01", "Argo Rollouts promotes a good version through TrafficSplits"),
    canary("AR-02", "Argo Rollouts aborts a version that fails half of its requests"),
];
