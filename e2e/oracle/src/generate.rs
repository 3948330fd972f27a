//! Random worlds and calls. Their vocabularies are small, so that names match, and they
//! contain every kind of mistake that authors make, so that its effect is tested.

mod calls;
mod hostile;
mod objects;
mod policies;
mod vocabulary;

pub use calls::request;
pub use hostile::hostile;
pub use objects::pointers;
pub use policies::policies;
pub use vocabulary::{SHOP, Vocabulary};

use serde_json::{Value, json};

use crate::{Chart, World, random::Random};

impl World {
    /// A world in [`SHOP`].
    pub fn random(random: &mut Random) -> Self {
        Self::random_in(random, &SHOP)
    }

    /// A world whose SMI objects are about `vocabulary`; the rest is as in [`SHOP`].
    pub fn random_in(random: &mut Random, vocabulary: &Vocabulary) -> Self {
        let mut world = Self {
            objects: Vec::new(),
            chart: chart(random),
        };
        for name in SHOP.namespaces {
            world.objects.push(namespace(random, name));
        }
        for (i, home) in SHOP.namespaces.iter().enumerate() {
            for (j, account) in SHOP.accounts.iter().enumerate() {
                for k in 0..=random.below(2) {
                    let ip = format!("10.{i}.{j}.{}", k + 1);
                    let pod = pod(random, home, &format!("{account}-{k}"), account, &ip);
                    world.objects.push(pod);
                }
            }
        }
        world.objects.extend(services(random));
        world.objects.extend(policies(random, vocabulary));
        world
    }
}

fn chart(random: &mut Random) -> Chart {
    Chart {
        access: random
            .pick(&[
                "auto", "auto", "auto", "auto", "deny", "deny", "deny", "deny", "open", "audit",
            ])
            .to_owned(),
        mtls: random
            .pick(&["permissive", "permissive", "permissive", "strict"])
            .to_owned(),
        pods_may_loosen: random.percent(20),
    }
}

fn namespace(random: &mut Random, name: &str) -> Value {
    let mut namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": {}},
    });
    annotate_modes(random, &mut namespace, 15);
    if random.percent(10) {
        let ports = random.pick(&["9090", "1-2", "9090, 7000"]);
        namespace["metadata"]["annotations"]["weft.dev/opaque-ports"] = json!(ports);
    }
    namespace
}

fn annotate_modes(random: &mut Random, object: &mut Value, share: usize) {
    let annotations = &mut object["metadata"]["annotations"];
    if random.percent(share) {
        let mode = random.pick(&["deny", "auto", "open", "audit", "Deny", ""]);
        annotations["weft.dev/access"] = json!(mode);
    }
    if random.percent(share / 2) {
        let mode = random.pick(&["permissive", "strict", "none"]);
        annotations["weft.dev/mtls"] = json!(mode);
    }
}

/// A running pod with a proxy.
fn pod(random: &mut Random, home: &str, name: &str, account: &str, ip: &str) -> Value {
    let mut ports = vec![json!({"containerPort": 8080})];
    if random.percent(40) {
        ports.push(json!({"containerPort": 9090}));
    }
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": home, "uid": format!("{home}-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": account, "tier": random.pick(&["front", "back"])},
            "annotations": {"weft.dev/proxy-version": "0.1.0"},
        },
        "spec": {
            "nodeName": "node",
            "containers": [{"name": "app", "ports": ports}],
            "initContainers": [
                {"name": "weft-capture", "args": ["capture"]},
                {"name": "weft-proxy", "restartPolicy": "Always"},
            ],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    });
    if account != "default" || random.percent(50) {
        pod["spec"]["serviceAccountName"] = json!(account);
    }
    annotate_modes(random, &mut pod, 10);
    if random.percent(10) {
        let ports = random.pick(&["8080", "9090", "80,9090", "x"]);
        pod["metadata"]["annotations"]["weft.dev/opaque-ports"] = json!(ports);
    }
    pod
}

fn services(random: &mut Random) -> Vec<Value> {
    let mut services = Vec::new();
    let pairs = [("api", "api", 80), ("v1", "web", 80), ("v2", "default", 80)];
    for (i, (name, app, port)) in pairs.into_iter().enumerate() {
        if random.percent(15) {
            continue;
        }
        let mut ports = vec![json!({"name": "one", "port": port, "targetPort": 8080})];
        if random.percent(50) {
            let own = random.of(&[9090, 8080]);
            let number = random.of(&[9090, 9090, 8080]);
            ports.push(json!({"name": "two", "port": number, "targetPort": own}));
        }
        if random.percent(20) {
            let protocol = random.pick(&["http", "tcp", "strange"]);
            ports[0]["appProtocol"] = json!(protocol);
        }
        services.push(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": "shop",
                "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", random.below(3)),
            },
            "spec": {
                "clusterIP": format!("10.96.0.{}", i + 1),
                "clusterIPs": [format!("10.96.0.{}", i + 1)],
                "selector": {"app": app},
                "ports": ports,
            },
        }));
    }
    if random.percent(30) {
        services.push(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "outer", "namespace": "shop"},
            "spec": {
                "type": "ExternalName", "externalName": "example.com",
                "ports": [{"name": "one", "port": 80}],
            },
        }));
    }
    services
}
