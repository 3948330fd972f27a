//! An API server for `localhost`, with a certificate, a user that a plugin knows, and pods
//! whose ports can be reached.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use fake_api::FakeApi;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::forward::{self, Pages};

/// What the plugin gives and the API server wants.
const TOKEN: &str = "given-by-the-plugin";
/// The identity of a pod, as its proxy presents it.
const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The server, and a kubeconfig for it.
pub(super) struct Server {
    pub(super) api: FakeApi,
    pub(super) port: u16,
    folder: TempDir,
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
        let mut shown = CertificateParams::default();
        shown.subject_alt_names = vec![SanType::URI(IDENTITY.try_into().unwrap())];
        let own = KeyPair::generate().unwrap();
        let certificate = shown.signed_by(&own, &issuer).unwrap().pem();
        let config_of_pod = json!({"identity": IDENTITY, "targets": {"shop/cart-read": "7"}});
        let pages = BTreeMap::from([
            ("/certificate", certificate),
            ("/config", config_of_pod.to_string()),
        ]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let api = FakeApi::default();
        tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            (api.clone(), Arc::new(pages)),
        ));
        let folder = tempfile::tempdir().unwrap();
        Self {
            api,
            port,
            folder,
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

async fn serve(listener: TcpListener, tls: TlsAcceptor, (api, pages): (FakeApi, Pages)) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, client, pages) = (tls.clone(), api.client(), pages.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: http::Request<Incoming>| {
                let (client, pages) = (client.clone(), pages.clone());
                async move {
                    let answer = answer(&client, pages, request).await;
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            let _ = serving
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer(
    client: &kube::Client,
    pages: Pages,
    request: http::Request<Incoming>,
) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let known = request
        .headers()
        .get("authorization")
        .is_some_and(|header| header == format!("Bearer {TOKEN}").as_str());
    if !known {
        let status =
            json!({"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401})
                .to_string();
        let mut response = http::Response::new(status.into_bytes().into());
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        return response;
    }
    if request.uri().path().ends_with("/portforward") {
        return forward::switched(request, pages);
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let answer = client
        .send(http::Request::from_parts(parts, Body::from(body.to_vec())))
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    http::Response::from_parts(parts, body.collect_bytes().await.unwrap().into())
}
