//! A real OpenTelemetry Collector beside the cluster, which writes what it is sent into a
//! file. `make eyes` builds it.

use std::{fs, net::TcpStream, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::harness::{Beside, Namespace, beside::free_address, cluster::root, eventually};
use serde_json::{Value, json};

/// Where `make eyes` puts it.
const PROGRAM: &str = "target/tools/bin/otelcol";

/// A running collector, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    program: Beside,
    file: PathBuf,
}

/// A span of a pod of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty where the trace begins.
    pub(crate) parent: String,
    /// 2: of who is called, 3: of who calls.
    pub(crate) kind: u64,
}

impl Collector {
    /// Starts one that takes OTLP over gRPC.
    pub(crate) fn start(ns: &Namespace) -> anyhow::Result<Self> {
        let program = root().join(PROGRAM);
        ensure!(
            program.exists(),
            "{} does not exist: run `make eyes`",
            program.display()
        );
        let folder = root().join("target/collector").join(&ns.name);
        fs::create_dir_all(&folder)?;
        let file = folder.join("spans.json");
        let address = free_address()?;
        let config = json!({
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": address}}}},
            "exporters": {"file": {"path": file, "flush_interval": "100ms"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
            },
        });
        // JSON is YAML.
        let settings = folder.join("config.yaml");
        fs::write(&settings, config.to_string())?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&settings);
        let program = Beside::start(&mut command, &address, &folder)?;
        let limit = Duration::from_secs(30);
        eventually(limit, "the collector listens", || {
            TcpStream::connect(program.address())
                .with_context(|| format!("its log is in {}", folder.display()))
        })?;
        Ok(Self { program, file })
    }

    /// As `tracing.endpoint` names it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.program.address())
    }

    /// All spans of pods of this namespace so far.
    pub(crate) fn spans(&self, ns: &Namespace) -> anyhow::Result<Vec<Span>> {
        let text = fs::read_to_string(&self.file)?;
        // What is being written has no end yet.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let mut spans = Vec::new();
        for line in whole.lines() {
            let message: Value = serde_json::from_str(line)?;
            for sent in list(&message["resourceSpans"]) {
                let of = |name| attribute(&sent["resource"], name);
                if of("service.namespace") != ns.name {
                    continue;
                }
                let service = of("service.name");
                let scopes = list(&sent["scopeSpans"]);
                let all = scopes.flat_map(|scope| list(&scope["spans"]));
                spans.extend(all.map(|span| read(service, span)));
            }
        }
        Ok(spans)
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn attribute<'a>(resource: &'a Value, name: &str) -> &'a str {
    let mut attributes = list(&resource["attributes"]);
    let found = attributes.find(|one| one["key"] == name);
    let value = found.and_then(|one| one["value"]["stringValue"].as_str());
    value.unwrap_or_default()
}

fn read(service: &str, span: &Value) -> Span {
    let text = |field: &str| span[field].as_str().unwrap_or_default().to_owned();
    Span {
        service: service.to_owned(),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        kind: span["kind"].as_u64().unwrap_or_default(),
    }
}
