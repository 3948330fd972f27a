//! Which crates may use which, and what none of them may be built with.

pub(crate) const ALLOWED: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("runtime", &[]),
    ("automation", &["crds", "policy"]),
    ("crds", &["policy"]),
    ("gateway_api", &["crds", "policy"]),
    ("wire", &["policy"]),
    ("identity", &["policy"]),
    ("model", &["crds", "gateway_api", "policy", "wire"]),
    (
        "controller",
        &[
            "automation",
            "crds",
            "gateway_api",
            "model",
            "policy",
            "wire",
            "identity",
            "runtime",
        ],
    ),
    ("proxy_net", &["policy", "runtime"]),
    ("proxy_http", &["policy", "runtime", "proxy_net"]),
    (
        "proxy",
        &[
            "policy",
            "wire",
            "identity",
            "runtime",
            "proxy_http",
            "proxy_net",
        ],
    ),
    (
        "gateway",
        &["policy", "runtime", "proxy", "proxy_http", "proxy_net"],
    ),
    ("injector", &["crds", "policy", "identity", "runtime"]),
    ("cli", &["crds", "gateway_api", "policy"]),
    ("e2e", &["crds", "policy", "wire", "identity", "oracle"]),
    // What the mesh is compared with shares no code with it.
    ("oracle", &[]),
    // What talks to the API server is tested with it.
    ("fake_api", &[]),
    ("bench", &["policy", "wire", "identity"]),
];

/// The same, for tests alone: they may call two crates and compare the results.
pub(crate) const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    // What is decided must be what a reader decides who shares no code.
    ("crds", &["oracle"]),
    ("gateway_api", &["oracle"]),
    ("model", &["oracle"]),
    // Client and server of the read API must mean the same.
    ("controller", &["fake_api", "cli", "oracle"]),
    // A file must get the same errors as its object would get from the webhook.
    ("injector", &["model", "fake_api", "cli", "oracle"]),
    ("cli", &["fake_api", "oracle"]),
    // Its seeds alone.
    ("identity", &["oracle"]),
    ("proxy", &["oracle"]),
    // Pods of the mesh behind it.
    ("gateway", &["identity", "wire"]),
];

/// Crates that must not be linked, directly or through others.
pub(crate) const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "proxy",
        &["kube", "kube-client", "kube-core", "k8s-openapi"],
    ),
    (
        "gateway",
        &["kube", "kube-client", "kube-core", "k8s-openapi"],
    ),
    ("policy", &["tokio", "hyper", "kube", "k8s-openapi"]),
];

/// What waits or sends.
const INPUT_OUTPUT: &[&str] = &[
    "tokio",
    "tokio-stream",
    "tokio-util",
    "futures",
    "hyper",
    "hyper-util",
    "tonic",
    "tower",
    "socket2",
    "tracing",
];

/// Crates that must not be named in the manifest of another one, whatever is linked through
/// third ones: these know kube's types, and nothing of them waits or sends.
pub(crate) const NOT_NAMED: &[(&str, &[&str])] = &[
    ("automation", INPUT_OUTPUT),
    ("gateway_api", INPUT_OUTPUT),
    ("model", INPUT_OUTPUT),
];
