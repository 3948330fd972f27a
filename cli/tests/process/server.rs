//! An API server on loopback that the program is run against.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use fake_api::FakeApi;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the plugin gives and the API server wants.
const TOKEN: &str = "given-by-the-plugin";
pub(super) const WEFT: &str = env!("CARGO_BIN_EXE_weft");

/// An API server for `localhost`, and a kubeconfig for it.
pub(super) struct Server {
    pub(super) api: FakeApi,
    folder: TempDir,
    pub(super) port: u16,
    authority: String,
}

impl Server {
    pub(super) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = root.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(root, key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let api = FakeApi::default();
        tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            api.clone(),
        ));
        let folder = tempfile::tempdir().unwrap();
        Self {
            api,
            folder,
            port,
            authority,
        }
    }

    /// Writes a kubeconfig whose plugin is this script.
    pub(super) fn kubeconfig(&self, plugin: &str) -> PathBuf {
        let script = self.folder.path().join("plugin");
        std::fs::write(&script, format!("#!/bin/sh\n{plugin}\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let authority = k8s_openapi::ByteString(self.authority.clone().into_bytes());
        let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": script, "interactiveMode": "Never"});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://localhost:{}", self.port), "certificate-authority-data": authority,
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "shop"}}],
            "users": [{"name": "test", "user": {"exec": exec}}],
        });
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(super) fn well(&self) -> PathBuf {
        let credential = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": TOKEN}});
        self.kubeconfig(&format!("echo '{credential}'"))
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, api: FakeApi) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, api) = (tls.clone(), api.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: http::Request<Incoming>| {
                let api = api.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(&api, request).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            let _ = serving
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    api: &FakeApi,
    request: http::Request<Incoming>,
) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let known = request
        .headers()
        .get("authorization")
        .is_some_and(|held| held == format!("Bearer {TOKEN}").as_str());
    if !known {
        let status =
            json!({"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401})
                .to_string();
        let mut response = http::Response::new(status.into_bytes().into());
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        return response;
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    // What is created where something lies is answered with that, as questions are.
    if parts.method == http::Method::POST
        && let Some(told) = api.read(parts.uri.path())
    {
        return http::Response::new(told.to_string().into_bytes().into());
    }
    let answer = api
        .client()
        .send(http::Request::from_parts(parts, Body::from(body.to_vec())))
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    http::Response::from_parts(parts, body.collect_bytes().await.unwrap().into())
}

/// Runs it, for a minute at most.
pub(super) async fn run(
    command: &str,
    arguments: &[&str],
    kubeconfig: &Path,
) -> (i32, String, String) {
    let running = tokio::process::Command::new(command)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", kubeconfig.parent().unwrap().display()),
        )
        .current_dir(kubeconfig.parent().unwrap())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::time::timeout(Duration::from_secs(60), running)
        .await
        .unwrap()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}
