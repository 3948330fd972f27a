//! The suite's application and its harness, which calls from outside the mesh.

use anyhow::{Context as _, ensure};
use e2e::{
    conformance::Record,
    echo::{call::Order, seen::EchoMetrics},
    harness::{Api, App, Namespace, Pod, eventually},
};
use http::Method;
use serde_json::{Value, json};

use super::super::SOON;

/// The application's own port, within the mesh.
pub(super) const PORT: u16 = 9091;
/// The same interface for the harness: the pods skip it, so no rule holds there.
const BYPASS: u16 = 9092;

/// One suite's namespace with the application in it.
pub(super) struct Suite {
    pub(super) ns: Namespace,
    api: Api,
    pods: Vec<(String, Pod)>,
}

/// The names of one kind of object, as a cluster's discovery has them.
pub(super) fn known(id: &str, name: &str, kind: &str, short: &str) -> anyhow::Result<()> {
    let mut row = Record::begin(id)?;
    e2e::harness::mesh::installed()?;
    let cluster = e2e::harness::Cluster::connect()?;
    let crd = cluster.json(&[
        "get",
        "customresourcedefinitions.v1.apiextensions.k8s.io",
        name,
    ])?;
    let names = &crd["spec"]["names"];
    row.saw(
        format!("get definition {name}, apiextensions v1"),
        format!(
            "kind {} plural {} singular {} short {}",
            names["kind"], names["plural"], names["singular"], names["shortNames"]
        ),
    );
    let (plural, _) = name.split_once('.').context("a plural and a group")?;
    ensure!(names["kind"] == kind, "{names}");
    ensure!(names["plural"] == plural, "{names}");
    ensure!(names["singular"] == kind.to_lowercase(), "{names}");
    let shorts = names["shortNames"].as_array().into_iter().flatten();
    ensure!(shorts.into_iter().any(|name| name == short), "{names}");
    row.passed()
}

impl Suite {
    /// The set-up of access and specs: `a`, `b` and `c`, each with an account of
    /// its own, in a namespace in `deny`; kept as row `id`.
    pub(super) fn of_accounts(claim: &str, id: &str) -> anyhow::Result<Self> {
        let mut row = Record::begin(id)?;
        let ns = Namespace::meshed(claim)?;
        ns.annotate("weft.dev/access", Some("deny"))?;
        for letter in ["a", "b", "c"] {
            let (app, account) = (format!("app-{letter}"), format!("service-{letter}"));
            let mut template = application(&app).template();
            template["spec"]["serviceAccountName"] = json!(account);
            ns.apply_all(&[
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}),
                deployment(&app, &json!({"app": app}), &template),
                service(&app, &json!({"app": app})),
            ])?;
        }
        let suite = Self::ready(ns, &["app-a", "app-b", "app-c"])?;
        for letter in ["a", "b", "c"] {
            suite
                .ns
                .kubectl(&["get", "serviceaccount", &format!("service-{letter}")])?;
        }
        suite.note_services(&mut row, &["app-a", "app-b", "app-c"])?;
        row.passed()?;
        Ok(suite)
    }

    /// The set-up of splits: no accounts, and a root over `b` and `c`.
    pub(super) fn of_backends(claim: &str, id: &str) -> anyhow::Result<Self> {
        let mut row = Record::begin(id)?;
        let ns = Namespace::meshed(claim)?;
        ns.annotate("weft.dev/access", Some("open"))?;
        for (app, labels) in [
            ("app-a", json!({"app": "app-a"})),
            ("app-b", json!({"app": "app", "version": "b"})),
            ("app-c", json!({"app": "app", "version": "c"})),
        ] {
            let mut template = application(app).template();
            template["metadata"]["labels"] = labels.clone();
            let spec = template["spec"]
                .as_object_mut()
                .context("a pod has a spec")?;
            spec.remove("serviceAccountName");
            ns.apply_all(&[deployment(app, &labels, &template), service(app, &labels)])?;
        }
        ns.apply_all(&[service("app-svc", &json!({"app": "app"}))])?;
        let suite = Self::ready(ns, &["app-a", "app-b", "app-c"])?;
        suite.note_services(&mut row, &["app-a", "app-b", "app-c", "app-svc"])?;
        row.passed()?;
        Ok(suite)
    }

    fn ready(ns: Namespace, apps: &[&str]) -> anyhow::Result<Self> {
        let api = Api::open(&ns.cluster)?;
        let mut pods = Vec::new();
        for app in apps {
            ns.ready(&[&format!("{app}-deployment")])?;
        }
        let list = ns.json(&["get", "pods", "--field-selector=status.phase=Running"])?;
        for app in apps {
            let items = list["items"].as_array().into_iter().flatten();
            let object = items
                .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
                .find(|pod| pod["metadata"]["annotations"]["conformance"] == *app)
                .with_context(|| format!("no pod of {app}"))?;
            pods.push((
                (*app).to_owned(),
                Pod::listed(&ns.cluster, &ns.name, object),
            ));
        }
        Ok(Self { ns, api, pods })
    }

    fn note_services(&self, row: &mut Record, services: &[&str]) -> anyhow::Result<()> {
        for name in ["app-a", "app-b", "app-c"] {
            let name = format!("{name}-deployment");
            let deployment = self.ns.json(&["get", "deployment", &name])?;
            let ready = &deployment["status"]["readyReplicas"];
            ensure!(*ready == 1, "{name}: {}", deployment["status"]);
            row.saw(format!("get deployment {name}"), format!("ready {ready}"));
        }
        for name in services {
            let service = self.ns.json(&["get", "service", name])?;
            let (kind, port) = (&service["spec"]["type"], &service["spec"]["ports"][0]);
            ensure!(*kind == "NodePort" && port["port"] == PORT, "{service}");
            row.saw(
                format!("get service {name}"),
                format!("type {kind} port {}", port["port"]),
            );
        }
        Ok(())
    }

    /// The URL of an application within this namespace, as the suite writes it.
    pub(super) fn url(&self, service: &str, path: &str) -> String {
        // The final dot is the suite's own, and ends up in the Host header.
        format!(
            "http://{service}.{}.svc.cluster.local.:{PORT}{path}",
            self.ns.name
        )
    }

    /// Has `app-a` make one call.
    pub(super) fn call(&self, method: &str, url: &str) -> anyhow::Result<()> {
        let order = Order {
            url: url.into(),
            method: method.into(),
            body: String::new(),
            headers: None,
        };
        let body = serde_json::to_string(&order)?;
        self.ask("app-a", &Method::POST, "/call", &body).map(drop)
    }

    /// What an application has recorded.
    pub(super) fn seen(&self, app: &str) -> anyhow::Result<EchoMetrics> {
        let text = self.ask(app, &Method::GET, "/metrics", "")?;
        serde_json::from_str(&text).with_context(|| format!("{app} recorded {text}"))
    }

    /// Forgets what every application has recorded.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        for (app, _) in &self.pods {
            self.ask(app, &Method::DELETE, "/metrics", "")?;
        }
        Ok(())
    }

    /// Clears, makes these calls and judges what was recorded, until it is as it
    /// should be or the time for a change to take effect is over; kept as a row.
    pub(super) fn step(
        &self,
        id: &str,
        calls: &[(&str, String)],
        judge: impl Fn(&Self) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let mut row = Record::begin(id)?;
        let saw = eventually(SOON, id, || {
            self.clear()?;
            for (method, url) in calls {
                self.call(method, url)?;
            }
            judge(self)
        })?;
        row.saw(self.in_words(calls), saw);
        row.passed()
    }

    /// `50 times GET http://...`, with this run's namespace left out.
    fn in_words(&self, calls: &[(&str, String)]) -> String {
        let mut words: Vec<(usize, String)> = Vec::new();
        for (method, url) in calls {
            let one = format!("{method} {url}").replace(&self.ns.name, "NS");
            match words.last_mut() {
                Some((count, last)) if *last == one => *count += 1,
                _ => words.push((1, one)),
            }
        }
        let words: Vec<_> = words
            .into_iter()
            .map(|(count, one)| format!("app-a: {count} x {one}"))
            .collect();
        words.join(", ")
    }

    fn ask(&self, app: &str, method: &Method, path: &str, body: &str) -> anyhow::Result<String> {
        let pod = self.pods.iter().find(|(name, _)| name == app);
        let (_, pod) = pod.with_context(|| format!("no pod of {app}"))?;
        let (status, text) = self.api.ask_pod(pod, BYPASS, method, path, body)?;
        // 500 is what the application says of a call without an answer.
        let fits = status == 200 || (status == 500 && path == "/call");
        ensure!(fits, "{app} {path} answered {status}: {text}");
        Ok(text)
    }
}

fn application(name: &str) -> App {
    App::new(name)
        .env("SERVICE_NAME", name)
        .annotation("conformance", name)
        .annotation("weft.dev/skip-inbound-ports", &BYPASS.to_string())
        .readiness(
            json!({"httpGet": {"path": "/metrics", "port": i32::from(PORT)}, "periodSeconds": 1}),
        )
}

fn deployment(app: &str, labels: &Value, template: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("{app}-deployment")},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}})
}

fn service(name: &str, selector: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
        "type": "NodePort", "selector": selector,
        "ports": [{"name": "http", "port": PORT, "targetPort": PORT}]}})
}

/// `succeeded 1, failed 0` and so on, as the row keeps it.
pub(super) fn in_words(seen: &EchoMetrics) -> String {
    let calls = |list: &[e2e::echo::seen::Call]| {
        let names: Vec<_> = list
            .iter()
            .map(|call| {
                let path = call
                    .url
                    .split(&format!(":{PORT}"))
                    .last()
                    .unwrap_or_default();
                format!("{} {path}", call.method)
            })
            .collect();
        format!("{} [{}]", list.len(), names.join(", "))
    };
    format!(
        "answered below 400: {}; refused: {}; without an answer: {}",
        calls(&seen.resp_succeeded),
        calls(&seen.resp_failed),
        seen.transport_errors.len()
    )
}
