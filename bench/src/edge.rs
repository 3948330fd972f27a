//! What stands at the edge of the mesh, in the client's place: a Gateway of Weft, or an Envoy.
//! Clients outside call it over HTTP/1.1, in plaintext or in TLS, and it calls the server's proxy as
//! the client's proxy does.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{CertifiedKey, KeyPair};
use wire::v1::gateway_listener::Protocol;
use wire::v1::resource::Content;
use wire::{names, v1};

use crate::envoy::{self, Http};
use crate::resources::{self, HTTP_PORT, NAMESPACE, WEB, origin};
use crate::standing_in::resource;

/// Where the process listens, for plaintext and for TLS.
pub(crate) const HTTP: u16 = 20_080;
pub(crate) const HTTPS: u16 = 20_443;
/// Of the Gateway, of its certificate, and of Envoy's files.
pub(crate) const NAME: &str = "edge";

/// What a Gateway is sent beside what every pod gets: listeners, the certificate of one of them,
/// and the Service that all calls go to.
pub(crate) fn of_gateway() -> Result<Vec<v1::Resource>> {
    let made = certificate()?;
    let (_, mut all) = resources::web(HTTP_PORT).context("the Service has no such port")?;
    let name = names::certificate(NAMESPACE, NAME);
    let certificate = v1::ListenerCertificate {
        chain: vec![made.cert.der().to_vec()],
        key: made.signing_key.serialize_der(),
    };
    let gateway = v1::Gateway {
        origin: Some(origin("Gateway", NAME)),
        listeners: vec![
            listener("http", HTTP, Protocol::Http, Vec::new()),
            listener("https", HTTPS, Protocol::Https, vec![name.clone()]),
        ],
    };
    all.push(resource(&name, Content::ListenerCertificate(certificate)));
    all.push(resource(names::GATEWAY, Content::Gateway(gateway)));
    Ok(all)
}

/// One that leads all calls to the Service.
fn listener(
    name: &str,
    port: u16,
    protocol: Protocol,
    certificates: Vec<String>,
) -> v1::GatewayListener {
    let backend = v1::RouteBackend {
        namespace: NAMESPACE.to_owned(),
        service: WEB.to_owned(),
        port: HTTP_PORT.into(),
        weight: 1,
        endpoints: names::endpoints(NAMESPACE, WEB, HTTP_PORT),
        ..v1::RouteBackend::default()
    };
    let backends = v1::RouteBackends {
        backends: vec![backend],
    };
    let routes = v1::GatewayRoutes {
        hostnames: Vec::new(),
        actions: vec![v1::RouteAction {
            what: Some(v1::route_action::What::Backends(backends)),
        }],
        rules: vec![v1::RouteRule {
            origin: Some(origin("HTTPRoute", WEB)),
            rule: String::new(),
            matches: None,
            action: 0,
        }],
    };
    v1::GatewayListener {
        name: name.to_owned(),
        port: port.into(),
        target_port: port.into(),
        protocol: protocol.into(),
        hostname: String::new(),
        certificates,
        routes: vec![routes],
    }
}

/// Writes what an Envoy at the edge reads into `folder`, in which its certificate of the mesh is.
/// It does what an edge has to: addresses of clients in `x-forwarded-for`, paths in one form,
/// HTTP/1.1 and HTTP/2 at each port.
pub(crate) fn write_envoy(folder: &Path) -> Result<()> {
    let made = certificate()?;
    fs::write(folder.join(format!("{NAME}.pem")), made.cert.pem())?;
    let key = made.signing_key.serialize_pem();
    fs::write(folder.join(format!("{NAME}.key")), key)?;
    let filter = envoy::http_filter(&Http {
        codec: "AUTO",
        hosts: &[(WEB, WEB)],
        ..Http::default()
    });
    let plain = "generate_request_id: false\n";
    let of_edge = format!(
        "{plain}          use_remote_address: true\n          normalize_path: true\n          path_with_escaped_slashes_action: REJECT_REQUEST\n"
    );
    let filter = filter.replace(plain, &of_edge);
    let listeners = [
        envoy::listener("http", HTTP, &filter, ""),
        envoy::listener("https", HTTPS, &filter, &tls(folder)),
    ];
    let clusters = envoy::outbound_clusters(folder);
    let text = envoy::document(&listeners.concat(), &clusters);
    fs::write(folder.join(format!("envoy-{NAME}.yaml")), text)?;
    Ok(())
}

/// TLS that ends here, of clients without a certificate.
fn tls(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "      transport_socket:
        name: tls
        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{alpn_protocols: [h2, http/1.1], tls_certificates: [{{certificate_chain: {{filename: {folder}/{NAME}.pem}}, private_key: {{filename: {folder}/{NAME}.key}}}}]}}}}
"
    )
}

/// ECDSA with P-256, as those of the mesh.
fn certificate() -> Result<CertifiedKey<KeyPair>> {
    Ok(rcgen::generate_simple_self_signed([WEB.to_owned()])?)
}

#[cfg(test)]
mod tests {
    use wire::convert;
    use wire::v1::resource::Content;

    use super::{HTTP, HTTPS, of_gateway};

    #[test]
    fn gateway_of_bench_serves_one_route_by_two_listeners() {
        let resources = of_gateway().unwrap();
        let gateways: Vec<_> = resources
            .iter()
            .filter_map(|resource| match &resource.content {
                Some(Content::Gateway(gateway)) => Some(convert::gateway(gateway).unwrap()),
                _ => None,
            })
            .collect();
        let listeners: Vec<_> = gateways[0]
            .listeners
            .iter()
            .map(|one| (one.target_port, one.certificates.len(), one.routes.len()))
            .collect();
        assert_eq!(listeners, [(HTTP, 0, 1), (HTTPS, 1, 1)]);
    }
}
