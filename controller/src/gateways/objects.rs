//! Makes the three objects of a Gateway: a ServiceAccount, a Deployment and a Service, all of one
//! name.
//!
//! They are made from the Gateway, its parameters and the settings of this controller alone, so
//! that two replicas make the same. Labels and annotations of `infrastructure` come first and ours
//! over them: a Gateway must not be able to take another one's name, account or place in the mesh.

use std::collections::BTreeMap;

use crds::labels;
use crds::objects::{
    GATEWAY_CONTAINER, TOKEN_SECONDS, TOKEN_VOLUME, TRUST_BUNDLE, TRUST_BUNDLE_KEY,
};
use gateway_api::gateway::{NAME_LABEL, resource_name};
use model::world::ObjectKey;
use policy::well_known::{ADMIN_PORT, TOKEN_AUDIENCE};
use serde_json::{Map, Value, json};

use super::parameters::{Parameters, Replicas, ServiceType};
use crate::settings::gateways::GatewaySettings;

/// As what the objects are written, and by what they say that they are managed.
pub(super) const MANAGER: &str = "weft-controller-gateways";
/// Of Services, and of the labels with a Gateway's name.
const NAME_LIMIT: usize = 63;
/// Label of the Gateway API: the class of the Gateway that an object was made for.
const CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
const PROGRAM_LABEL: &str = "app.kubernetes.io/name";
/// Of the pods' program, as the model reads it.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TOKEN_FOLDER: &str = "/var/run/weft/token";
const BUNDLE_FOLDER: &str = "/var/run/weft/bundle";
/// The proxy lets calls end for 30 s, and closes what is left.
const GRACE_SECONDS: u32 = 40;

/// What one Gateway is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) gateway: ObjectKey,
    pub(super) uid: String,
    pub(super) class: String,
    /// Those of its `infrastructure`.
    pub(super) labels: BTreeMap<String, String>,
    /// The same.
    pub(super) annotations: BTreeMap<String, String>,
    /// Of the listeners that are served: the port that clients call, and that of the pods.
    pub(super) ports: BTreeMap<u16, u16>,
    pub(super) parameters: Parameters,
}

/// One of the objects of a Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    ServiceAccount,
    Deployment,
    Service,
}

impl Part {
    /// In the order in which they are made: a pod needs its account.
    pub(super) const ALL: [Self; 3] = [Self::ServiceAccount, Self::Deployment, Self::Service];

    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Deployment => "Deployment",
            Self::Service => "Service",
        }
    }

    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Deployment => "apps",
            Self::ServiceAccount | Self::Service => "",
        }
    }

    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceaccounts",
            Self::Deployment => "deployments",
            Self::Service => "services",
        }
    }
}

/// The name of a Gateway's objects, however long it is.
pub(super) fn written_name(gateway: &str) -> String {
    resource_name(gateway)
}

/// The name of a Gateway's objects. Names of Gateways may have dots and begin with a digit, those
/// of Services may not.
///
/// # Errors
/// When a Service cannot have that name: why, and the way out.
pub(super) fn name(gateway: &str) -> Result<String, String> {
    let name = written_name(gateway);
    let of_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let (why, way_out) = if name.len() > NAME_LIMIT {
        ("is longer than 63 characters", "a shorter name")
    } else if !name.bytes().all(of_label) {
        (
            "has other characters than lowercase letters, digits and \"-\"",
            "a name of these alone",
        )
    } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        (
            "does not begin with a letter",
            "a name that begins with one",
        )
    } else {
        return Ok(name);
    };
    Err(format!(
        "its Service would be named {name}, which no Service can be, because that {why}: give the \
         Gateway {way_out}"
    ))
}

/// One object as it should be. Where a Deployment's number of pods is left to others, that is
/// `replicas`, as it was found.
pub(super) fn object(
    part: Part,
    name: &str,
    wanted: &Wanted,
    settings: &GatewaySettings,
    replicas: Option<&Value>,
) -> Value {
    let mut object = json!({
        "apiVersion": if part == Part::Deployment { "apps/v1" } else { "v1" },
        "kind": part.kind(),
        "metadata": {
            "name": name,
            "namespace": &*wanted.gateway.namespace,
            "labels": labels(wanted),
            "ownerReferences": [owner(wanted)],
        },
    });
    // The mesh's own are of pods, and have no meaning here.
    let annotations = wanted.annotations.iter();
    let annotations: BTreeMap<&String, &String> = annotations
        .filter(|(name, _)| !name.starts_with(labels::PREFIX))
        .collect();
    if !annotations.is_empty() {
        object["metadata"]["annotations"] = json!(annotations);
    }
    match part {
        // No container of the pod calls the API server.
        Part::ServiceAccount => object["automountServiceAccountToken"] = json!(false),
        Part::Deployment => {
            object["spec"] = deployment(name, wanted, settings);
            let replicas = match wanted.parameters.replicas {
                Replicas::Fixed(number) => Some(json!(number)),
                Replicas::Auto => replicas.cloned(),
            };
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = replicas;
            }
        }
        Part::Service => object["spec"] = service(wanted),
    }
    object
}

/// With the Gateway its objects go. It is not held up by them: the right to its finalizers is not
/// needed then.
fn owner(wanted: &Wanted) -> Value {
    json!({
        "apiVersion": format!("{}/v1", gateway_api::GROUP),
        "kind": "Gateway",
        "name": &*wanted.gateway.name,
        "uid": wanted.uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })
}

/// Whether the object is one that was made for the Gateway of this uid.
pub(super) fn is_owned(object: &Value, uid: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let mut owners = owners.into_iter().flatten();
    owners.any(|owner| owner["uid"] == uid && owner["controller"] == true)
}

/// Whether the object was made for an earlier Gateway of this name: with that one Kubernetes takes it
/// away, within moments.
pub(super) fn is_left_behind(object: &Value, wanted: &Wanted) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let mut owners = owners.into_iter().flatten();
    let own = owner(wanted);
    owners.any(|owner| {
        let is_of_name = ["apiVersion", "kind", "name", "controller"]
            .iter()
            .all(|field| owner[*field] == own[*field]);
        is_of_name && owner["uid"] != own["uid"]
    })
}

fn selector(wanted: &Wanted) -> Value {
    json!({NAME_LABEL: &*wanted.gateway.name, PROGRAM_LABEL: GATEWAY_CONTAINER})
}

fn labels(wanted: &Wanted) -> Map<String, Value> {
    // The mesh's own labels of pods are no user's: one of them is guarded by a webhook, and the
    // pod would not be made.
    let theirs = wanted.labels.iter();
    let theirs = theirs.filter(|(name, _)| !name.starts_with(labels::PREFIX));
    let mut all: Map<String, Value> = theirs
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let ours = [
        (NAME_LABEL, &*wanted.gateway.name),
        (PROGRAM_LABEL, GATEWAY_CONTAINER),
        ("app.kubernetes.io/managed-by", MANAGER),
        ("app.kubernetes.io/part-of", "weft"),
    ];
    for (name, value) in ours {
        all.insert(name.to_owned(), json!(value));
    }
    // Names of classes may be longer than labels.
    if wanted.class.len() <= NAME_LIMIT {
        all.insert(CLASS_LABEL.to_owned(), json!(wanted.class));
    }
    all
}

fn deployment(name: &str, wanted: &Wanted, settings: &GatewaySettings) -> Value {
    let mut annotations = wanted.annotations.clone();
    annotations.insert(labels::PROXY_VERSION.to_owned(), VERSION.to_owned());
    for (name, value) in [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", ADMIN_PORT.to_string()),
        (
            "kubectl.kubernetes.io/default-container",
            GATEWAY_CONTAINER.to_owned(),
        ),
    ] {
        annotations.entry(name.to_owned()).or_insert(value);
    }
    let mut of_pods = labels(wanted);
    // It is a proxy by itself.
    of_pods.insert(labels::INJECT.to_owned(), json!(labels::DISABLED));
    json!({
        "selector": {"matchLabels": selector(wanted)},
        // A pod goes when its successor serves.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "template": {
            "metadata": {"labels": of_pods, "annotations": annotations},
            "spec": pod(name, wanted, settings),
        },
    })
}

/// As Pod Security Admission's restricted profile wants it. No user is named: the image names
/// one, and OpenShift gives each namespace its own.
fn pod(name: &str, wanted: &Wanted, settings: &GatewaySettings) -> Value {
    let spread = |topology: &str| {
        json!({
            "topologyKey": topology,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(wanted)},
        })
    };
    let mut pod = json!({
        "serviceAccountName": name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "topologySpreadConstraints": [
            spread("topology.kubernetes.io/zone"),
            spread("kubernetes.io/hostname"),
        ],
        "containers": [container(wanted, settings)],
        "volumes": [
            {
                "name": TOKEN_VOLUME,
                "projected": {"sources": [{"serviceAccountToken": {
                    "audience": TOKEN_AUDIENCE,
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": "token",
                }}]},
            },
            {"name": TRUST_BUNDLE, "configMap": {"name": TRUST_BUNDLE}},
        ],
    });
    if let Some(spec) = pod.as_object_mut() {
        settings.architectures.require(spec);
    }
    if !settings.pull_secrets.is_empty() {
        let secrets = settings.pull_secrets.iter();
        pod["imagePullSecrets"] = secrets.map(|name| json!({"name": name})).collect();
    }
    pod
}

fn container(wanted: &Wanted, settings: &GatewaySettings) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": ADMIN_PORT},
            "periodSeconds": period,
            "failureThreshold": failures,
        })
    };
    json!({
        "name": GATEWAY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": [format!("/{GATEWAY_CONTAINER}")],
        "args": ["run"],
        "env": env(wanted, settings),
        // Those of the listeners are left out: naming one does nothing, and each that comes or goes
        // would make all pods anew.
        "ports": [{"name": "weft-admin", "containerPort": ADMIN_PORT}],
        "resources": {"requests": {
            "cpu": wanted.parameters.cpu_request,
            "memory": wanted.parameters.memory_request,
        }},
        "startupProbe": probe("/ready", 1, 120),
        "readinessProbe": probe("/ready", 2, 3),
        "livenessProbe": probe("/live", 10, 3),
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true},
            {"name": TRUST_BUNDLE, "mountPath": BUNDLE_FOLDER, "readOnly": true},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    })
}

fn env(wanted: &Wanted, settings: &GatewaySettings) -> Value {
    let from_pod = |name: &str, field: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}});
    let fixed = |name: &str, value: &str| json!({"name": name, "value": value});
    json!([
        from_pod("WEFT_NAMESPACE", "metadata.namespace"),
        from_pod("WEFT_POD_NAME", "metadata.name"),
        from_pod("WEFT_POD_UID", "metadata.uid"),
        from_pod("WEFT_POD_IPS", "status.podIPs"),
        from_pod("WEFT_NODE_NAME", "spec.nodeName"),
        from_pod("WEFT_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        fixed("WEFT_CONTROLLER_ADDRESS", &settings.controller_address),
        fixed("WEFT_CONTROLLER_NAMESPACE", &settings.controller_namespace),
        fixed("WEFT_TRUST_DOMAIN", &settings.trust_domain),
        fixed("WEFT_TOKEN_FILE", &format!("{TOKEN_FOLDER}/token")),
        fixed(
            "WEFT_TRUST_BUNDLE",
            &format!("{BUNDLE_FOLDER}/{TRUST_BUNDLE_KEY}")
        ),
        fixed(
            "WEFT_TRUSTED_HOPS",
            &wanted.parameters.trusted_hops.to_string()
        ),
        fixed("WEFT_LOG", "info"),
    ])
}

fn service(wanted: &Wanted) -> Value {
    let ports = wanted.ports.iter().map(|(port, target)| {
        json!({"name": port_name(*port), "port": port, "targetPort": target, "protocol": "TCP"})
    });
    let mut spec = json!({
        "type": wanted.parameters.service_type.as_str(),
        "selector": selector(wanted),
        "ipFamilyPolicy": "PreferDualStack",
        "ports": ports.collect::<Vec<Value>>(),
    });
    if wanted.parameters.service_type != ServiceType::ClusterIp {
        let policy = wanted.parameters.external_traffic_policy;
        spec["externalTrafficPolicy"] = json!(policy.map_or("Cluster", |policy| policy.as_str()));
    }
    spec
}

fn port_name(port: u16) -> String {
    format!("port-{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_an_earlier_gateway_go_and_others_stay() {
        let wanted = Wanted {
            gateway: ObjectKey::new("edge", "web"),
            uid: "uid-new".to_owned(),
            class: "weft".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            ports: BTreeMap::new(),
            parameters: Parameters::default(),
        };
        let owned = |owner: Value| json!({"metadata": {"ownerReferences": [owner]}});
        let own = owner(&wanted);
        assert!(!is_left_behind(&owned(own.clone()), &wanted));
        let mut earlier = own;
        earlier["uid"] = json!("uid-old");
        assert!(is_left_behind(&owned(earlier.clone()), &wanted));
        for (field, value) in [("kind", "Service"), ("name", "other"), ("apiVersion", "v1")] {
            let mut other = earlier.clone();
            other[field] = json!(value);
            assert!(!is_left_behind(&owned(other), &wanted), "{field}");
        }
        assert!(!is_left_behind(&json!({"metadata": {}}), &wanted));
    }

    #[test]
    fn names_of_objects_fit_into_services() {
        assert_eq!(name("shop").unwrap(), "shop-weft");
        assert_eq!(name("s1-2").unwrap(), "s1-2-weft");
        assert!(name(&"a".repeat(58)).is_ok());
        for (gateway, expected) in [
            ("a".repeat(59).as_str(), "shorter name"),
            ("my.gw", "named my.gw-weft"),
            ("my.gw", "lowercase letters, digits"),
            ("1shop", "begin with a letter"),
        ] {
            let why = name(gateway).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }
}
