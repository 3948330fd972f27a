//! The objects that run the test application: account, Deployment, Service.

use serde_json::{Value, json};

/// Image of the test application; `WEFT_ECHO_IMAGE` names another one, for a
/// cluster that pulls from elsewhere.
pub fn image() -> String {
    std::env::var("WEFT_ECHO_IMAGE").unwrap_or_else(|_| "weft.local/weft/echo:0.1.0".into())
}

/// A Deployment of the test application with its Service and service account, all
/// of the same name.
#[derive(Clone, Debug)]
pub struct App {
    name: String,
    replicas: u32,
    version: String,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    env: Vec<(String, Value)>,
    readiness: Value,
    more: Value,
    calls: Vec<(String, u32)>,
}

impl App {
    /// One replica, ready when its HTTP port answers.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            replicas: 1,
            version: name.into(),
            labels: Vec::new(),
            annotations: Vec::new(),
            env: Vec::new(),
            readiness: json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}),
            more: json!({}),
            calls: Vec::new(),
        }
    }

    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// The version that it reports; its name when unset.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        self
    }

    /// A label of the pods, such as the injection label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// An annotation of the pods.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.into(), value.into()));
        self
    }

    /// A variable of the application, see `weft-echo`'s settings.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), json!({"value": value})));
        self
    }

    /// A variable that the pod's own fields give, such as `status.podIP`.
    pub fn env_field(mut self, name: &str, field: &str) -> Self {
        self.env.push((
            name.into(),
            json!({"valueFrom": {"fieldRef": {"fieldPath": field}}}),
        ));
        self
    }

    /// Another readiness probe; `null` for none.
    pub fn readiness(mut self, probe: Value) -> Self {
        self.readiness = probe;
        self
    }

    /// Further fields of the container, such as `livenessProbe`.
    pub fn container(mut self, fields: Value) -> Self {
        self.more = fields;
        self
    }

    /// Serves nothing, and calls each of these URLs so often in a second, for ten minutes.
    pub fn calling(mut self, calls: &[(&str, u32)]) -> Self {
        let calls = calls.iter().map(|(url, rate)| ((*url).to_owned(), *rate));
        self.calls = calls.collect();
        self
    }

    /// The objects, to be applied.
    pub fn objects(&self) -> Vec<Value> {
        let name = &self.name;
        vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}),
            service(name, &json!({"app": name})),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": name}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": self.template(),
            }}),
        ]
    }

    /// The pod template, for kinds other than Deployment.
    pub fn template(&self) -> Value {
        let mut labels = json!({"app": self.name});
        for (key, value) in &self.labels {
            labels[key] = json!(value);
        }
        let mut annotations = json!({});
        for (key, value) in &self.annotations {
            annotations[key] = json!(value);
        }
        let mut env = vec![
            json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
            json!({"name": "VERSION", "value": self.version}),
            json!({"name": "SERVICE_NAME", "value": self.name}),
        ];
        for (name, source) in &self.env {
            let mut variable = source.clone();
            variable["name"] = json!(name);
            env.push(variable);
        }
        let mut container = json!({
            "name": "app", "image": image(), "imagePullPolicy": "IfNotPresent", "env": env,
            "ports": [
                {"name": "http", "containerPort": 8080},
                {"name": "echo", "containerPort": 9000},
                {"name": "banner", "containerPort": 9001},
                {"name": "call", "containerPort": 9091},
                {"name": "outside", "containerPort": 9092},
            ],
        });
        if !self.readiness.is_null() {
            container["readinessProbe"] = self.readiness.clone();
        }
        for (key, value) in self.more.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        // A generator is process 1 and catches no signal, so it is killed at the end.
        let (containers, grace) = if self.calls.is_empty() {
            (json!([container]), 15)
        } else {
            (self.generators(), 1)
        };
        json!({
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {"serviceAccountName": self.name, // A Service called tcp would set TCP_PORT, which is the application's own.
                "enableServiceLinks": false, "terminationGracePeriodSeconds": grace, "containers": containers},
        })
    }

    /// A container for each URL that is called.
    fn generators(&self) -> Value {
        let generator = |(at, (url, rate)): (usize, &(String, u32))| {
            json!({
                "name": format!("call-{at}"), "image": image(), "imagePullPolicy": "IfNotPresent",
                "args": ["get", url, "--rate", rate.to_string(), "--duration", "10m", "-c", "4", "--json"],
                "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}},
            })
        };
        self.calls.iter().enumerate().map(generator).collect()
    }
}

/// A Service with all ports of the application. `echo` is declared as TCP, `banner`
/// is declared as nothing, the others as HTTP.
pub fn service(name: &str, selector: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
        "selector": selector,
        "ports": [
            {"name": "http", "port": 8080},
            {"name": "tcp-echo", "port": 9000},
            {"name": "banner", "port": 9001},
            {"name": "http-call", "port": 9091},
            {"name": "http-outside", "port": 9092},
        ],
    }})
}
