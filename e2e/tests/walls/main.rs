//! The allowed dependencies: between crates, checked against Cargo's metadata, and
//! inside each crate between folders and files, checked against their imports.
//!
//! Breaches that are allowed so far stand in `walls/allowance`, which can only shrink.
//! After a merge it is written anew by
//! `WEFT_WRITE_GENERATED=1 cargo test -p e2e --test walls`; read the difference.

mod allowance;
mod circles;
mod crates;
mod kinds;
mod modules;
mod named;
mod planted;
mod reader;
mod rooms;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crates::{ALLOWED, ALLOWED_IN_TESTS, FORBIDDEN, NOT_NAMED};
use rules::{Crate, Exempt, Rationed, Silent, Spelt};

const EXEMPT: Exempt = Exempt {
    generated: &[
        "wire/src/generated.rs",
        // The same of an older version, which tests speak.
        "wire/tests/older/messages.rs",
        "wire/tests/older/status.rs",
    ],
    // What is measured and what it must not exceed, a row each.
    tables: &["bench/src/measures.rs"],
    silent: &[
        Silent {
            of: "model",
            folders: &["compile", "model"],
            // It is what of a model goes to the proxies.
            besides: &["model/published"],
            about: "wire",
        },
        // What they hold is about Services, configuration and the controller, in whatever bytes
        // it goes over the network.
        Silent {
            of: "proxy",
            folders: &[
                "settings",
                "endpoints",
                "config",
                "drain",
                "control",
                "capture",
                "admin",
                "process",
            ],
            besides: &[],
            about: "weft_proxy_http",
        },
        Silent {
            of: "proxy",
            folders: &[
                "settings",
                "endpoints",
                "config",
                "drain",
                "control",
                "probe",
                "admin",
            ],
            besides: &[],
            about: "weft_proxy_net",
        },
    ],
    proven: &[
        // Structs and maps with text as keys, whose numbers came out of JSON.
        ("crds/src/convert/fragment.rs", "json"),
        // The provider is a constant of that file, with suites for TLS 1.3.
        ("identity/src/tls.rs", "tls13"),
    ],
    rationed: &[
        // All decisions about a call use one snapshot, taken once. Exempt are the file that
        // ends calls that are no longer allowed, which reads newer ones, the client of the
        // controller and the admin pages.
        Rationed {
            method: "snapshot",
            folders: &["proxy/src"],
            besides: &[
                "proxy/src/inbound/reauthorize.rs",
                "proxy/src/control/live_queries.rs",
                "proxy/src/control/stream.rs",
                "proxy/src/control/trust_bundle.rs",
                "proxy/src/admin.rs",
            ],
            once_in: &[
                ("proxy/src/inbound/request.rs", "handle_request"),
                ("proxy/src/inbound/serve.rs", "serve"),
                // Bytes that need no look: they are decided before their way is opened, and
                // never come to `serve`.
                ("proxy/src/inbound/peer.rs", "tunnel"),
                ("proxy/src/outbound/request.rs", "handle_request"),
                // Bytes: when they are known to be, or when a server is connected to learn
                // which side speaks first.
                ("proxy/src/outbound/opaque.rs", "route_bytes"),
                // A fallback for a failed call, or a mirrored request, is another call.
                ("proxy/src/outbound/route.rs", "elsewhere"),
            ],
            again_in: &[],
        },
        // How it is read before that, and how it is counted if it comes to nothing.
        Rationed {
            method: "inspect",
            folders: &["proxy/src"],
            // Whether what a connection was opened to is still there, and the certificates that
            // opened it still hold, which changes while it is open. Quota shares come for all calls
            // together.
            besides: &[
                "proxy/src/outbound/opened_to.rs",
                "proxy/src/config/revoked.rs",
                "proxy/src/config/sharing.rs",
            ],
            once_in: &[
                ("proxy/src/outbound.rs", "serve"),
                ("proxy/src/outbound/connection.rs", "call"),
                // Which name has to be resolved before its call is decided.
                ("proxy/src/outbound/egress.rs", "look_up"),
                ("proxy/src/outbound/egress.rs", "is_resolved"),
                // Which name or address that is, of what a Gateway is to let out.
                ("proxy/src/outbound/handed_over.rs", "connection"),
                // Whether rules changed before the connection noted what it was opened for.
                ("proxy/src/outbound/egress.rs", "route"),
                ("proxy/src/outbound/request.rs", "receive"),
                // An attempt after the first may be seconds later, and an address be known
                // as meshed by then.
                ("proxy/src/outbound/choice.rs", "newest"),
                ("proxy/src/outbound/passthrough.rs", "external"),
                // How bytes are counted, which decides nothing.
                ("proxy/src/inbound/opaque.rs", "call_of_bytes"),
            ],
            // For each connection that comes, and until one of them says something or
            // is no longer allowed to be there.
            again_in: &[
                ("proxy/src/process/listener.rs", "accept"),
                ("proxy/src/inbound/serve.rs", "detect"),
                ("proxy/src/outbound/passthrough.rs", "unknown"),
            ],
        },
        // Open byte streams are checked again, with newer snapshots: the pod may become one
        // that gets only copies, and its open streams could change something elsewhere.
        Rationed {
            method: "until_refused",
            folders: &["proxy/src"],
            besides: &[],
            once_in: &[
                ("proxy/src/outbound/opaque.rs", "relay_opened"),
                // Upgraded connections.
                ("proxy/src/outbound/respond.rs", "switch"),
                // Requests outside the mesh, which their egress may forbid meanwhile.
                ("proxy/src/outbound.rs", "decide"),
                // It goes in plaintext too, which a stricter mode forbids.
                ("proxy/src/outbound/passthrough.rs", "unknown"),
                ("proxy/src/outbound/passthrough.rs", "external"),
                // Connections of peers, and of the controller, whose root is stolen, and of
                // peers whose certificate is revoked.
                ("proxy/src/inbound.rs", "serve_mesh"),
                ("proxy/src/outbound/handed_over.rs", "serve_handed_over"),
                ("proxy/src/inbound/connection.rs", "certificate_ended"),
                ("proxy/src/inbound/reauthorize.rs", "certificate_revoked"),
                ("proxy/src/control/stream.rs", "until_distrusted"),
            ],
            again_in: &[],
        },
    ],
    spelt: &[Spelt {
        prefix: "weft-",
        folders: &["proxy/src", "proxy/http/src", "proxy/net/src"],
        file: "proxy/http/src/header_names.rs",
        // The name of the program, as collectors see it.
        besides: &[("proxy/src/telemetry/trace/signal.rs", "weft-proxy")],
    }],
    // A request reads as one sentence.
    short: &[
        ("proxy/src/inbound/request.rs", "handle_request"),
        ("proxy/src/outbound/request.rs", "handle_request"),
    ],
};

/// Crates whose programs run in a user's cluster.
const SHIPPED: &[&str] = &[
    "policy",
    "automation",
    "wire",
    "identity",
    "runtime",
    "crds",
    "gateway_api",
    "model",
    "controller",
    "proxy_net",
    "proxy_http",
    "proxy",
    "gateway",
    "injector",
    "cli",
];

#[test]
fn files_and_folders_of_every_crate_respect_boundaries() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the workspace");
    let here = top.join("e2e/tests/walls");
    let crates = crates(top, &here);
    let mut sources = BTreeMap::new();
    for member in &crates {
        read_sources(top, &member.folder, &mut sources);
    }
    for (file, function) in EXEMPT.short {
        assert!(sources.contains_key(*file), "{file} of {function} is gone");
    }
    let found = rules::breaches(&sources, &crates, &EXEMPT);

    let file = here.join("allowance");
    if std::env::var_os("WEFT_WRITE_GENERATED").is_some() {
        std::fs::write(&file, allowance::write(&found)).expect("the allowance must be writable");
    }
    let allowed = std::fs::read_to_string(&file).expect("the allowance must be committed");
    let differences = allowance::differences(&allowed, &found);
    assert!(
        differences.is_empty(),
        "{} places do not fit {}:\n{}",
        differences.len(),
        file.display(),
        differences.join("\n")
    );
}

fn crates(top: &Path, here: &Path) -> Vec<Crate> {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("packages");
    let relative = |path: &serde_json::Value| {
        let path = Path::new(path.as_str().expect("a path"));
        let path = path.strip_prefix(top).expect("below the workspace");
        path.to_str().expect("in UTF-8").to_owned()
    };
    let of = |package: &serde_json::Value| {
        let name = package["name"].as_str().expect("a name").to_owned();
        let manifest = relative(&package["manifest_path"]);
        let folder = manifest.trim_end_matches("/Cargo.toml").to_owned();
        let targets = package["targets"].as_array().expect("targets");
        let mut roots: Vec<(String, bool)> = targets
            .iter()
            .map(|target| {
                let kind = target["kind"][0].as_str().expect("a kind");
                let outside = ["lib", "bin"].contains(&kind);
                (relative(&target["src_path"]), !outside)
            })
            .collect();
        // The table of rooms is the library's, or the program's where there is none.
        roots.sort_by_key(|(root, test)| (*test, !root.ends_with("src/lib.rs"), root.len()));
        let table = here.join("rooms").join(&name);
        assert!(table.is_file(), "{} is missing", table.display());
        let text = std::fs::read_to_string(&table).expect("a table is UTF-8");
        let rooms = rooms::Rooms::parse(&text);
        assert!(rooms.is_ok(), "{}: {rooms:?}", table.display());
        Crate {
            shipped: SHIPPED.contains(&name.as_str()),
            rooms: rooms.unwrap_or_default(),
            name,
            folder,
            roots,
        }
    };
    packages.iter().map(of).collect()
}

fn read_sources(top: &Path, folder: &str, sources: &mut BTreeMap<String, String>) {
    let entries = std::fs::read_dir(top.join(folder)).expect("a folder of a crate");
    for entry in entries {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        let name = name.to_str().expect("in UTF-8");
        let path = format!("{folder}/{name}");
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            read_sources(top, &path, sources);
        } else if kind.is_file() && name.ends_with(".rs") {
            let text = std::fs::read_to_string(entry.path()).expect("source is UTF-8");
            sources.insert(path, text);
        }
    }
}

fn metadata(extra: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .args(extra)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo must run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

#[test]
fn no_crate_uses_one_behind_a_wall() {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        ours,
        ALLOWED.iter().map(|(name, _)| *name).collect(),
        "a crate is missing from the table"
    );
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let allowed = ALLOWED.iter().find(|(known, _)| *known == name).unwrap().1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let in_tests = dependency["kind"] == "dev"
                && ALLOWED_IN_TESTS
                    .iter()
                    .any(|(known, allowed)| *known == name && allowed.contains(&used));
            assert!(
                !ours.contains(used) || allowed.contains(&used) || in_tests,
                "{name} must not use {used}"
            );
            let not_named = NOT_NAMED.iter().filter(|(known, _)| *known == name);
            for (_, others) in not_named {
                assert!(!others.contains(&used), "{name} must not name {used}");
            }
            let features = dependency["features"].as_array();
            let has_fixtures = features.is_some_and(|all| all.iter().any(|one| one == "fixtures"));
            assert!(
                !has_fixtures || dependency["kind"] == "dev",
                "{name} must have the fixtures of {used} in tests alone"
            );
        }
    }
}

#[test]
fn the_data_plane_and_the_brain_link_no_kubernetes() {
    let metadata = metadata(&[]);
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let name = |id: &serde_json::Value| {
        metadata["packages"]
            .as_array()
            .unwrap()
            .iter()
            .find(|package| package["id"] == *id)
            .map(|package| package["name"].as_str().unwrap().to_owned())
            .unwrap()
    };
    // Arrows that end up in the binary: normal dependencies only.
    let arrows: BTreeMap<String, Vec<String>> = nodes
        .iter()
        .map(|node| {
            let uses = node["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dep| {
                    dep["dep_kinds"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|kind| kind["kind"].is_null())
                })
                .map(|dep| name(&dep["pkg"]))
                .collect();
            (name(&node["id"]), uses)
        })
        .collect();
    for (start, forbidden) in FORBIDDEN {
        let mut reached = BTreeSet::new();
        let mut left = vec![(*start).to_owned()];
        while let Some(at) = left.pop() {
            for next in arrows.get(&at).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    left.push(next.clone());
                }
            }
        }
        assert!(!reached.is_empty(), "{start} is not in the graph");
        for bad in *forbidden {
            assert!(!reached.contains(*bad), "{start} links {bad}");
        }
    }
}
