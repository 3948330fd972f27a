//! The peer: Envoy as a pair of sidecars with a static configuration.
//!
//! HTTP/1.1 from the client, one HTTP/2 connection over mutual TLS between the
//! proxies (what Envoy did best with), HTTP/1.1 to the server. Routing is by
//! Host on both sides, statistics are on, access log and request ids are off.
//! The first hop is redirected as with Weft and takes its target from the
//! original address; the second goes straight to port 15108 as with Weft.
//! There is one plain route: no access rules, no split.

use std::fs;
use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use policy::name::SpiffeId;
use rcgen::{CertificateParams, KeyPair};

use crate::namespaces::SERVER_IP;
use crate::resources::Pod;
use crate::standing_in::Authority;

/// Envoy's own page of statistics, on loopback.
pub(crate) const ADMIN_PORT: u16 = 15000;

/// Writes what both Envoys read into `folder`.
pub(crate) fn write(folder: &Path, authority: &Authority) -> Result<()> {
    fs::write(folder.join("root.pem"), authority.root.cert_pem())?;
    for pod in [Pod::Client, Pod::Server] {
        certify(folder, authority, pod.name(), pod.identity())?;
        fs::write(
            folder.join(format!("envoy-{}.yaml", pod.name())),
            config(folder, pod),
        )?;
    }
    Ok(())
}

/// Writes a certificate of this name, and its key, into `folder`.
pub(crate) fn certify(
    folder: &Path,
    authority: &Authority,
    name: &str,
    identity: SpiffeId,
) -> Result<()> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let issued = authority.issue(csr.der(), identity)?;
    let chain: String = issued
        .chain
        .iter()
        .map(|one| pem("CERTIFICATE", one))
        .collect();
    fs::write(folder.join(format!("{name}.pem")), chain)?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn config(folder: &Path, pod: Pod) -> String {
    let (listeners, clusters) = match pod {
        Pod::Client => (outbound_listeners(), outbound_clusters(folder)),
        Pod::Server => (inbound_listeners(folder), inbound_clusters()),
    };
    document(&listeners, &clusters)
}

/// All that one Envoy reads.
pub(crate) fn document(listeners: &str, clusters: &str) -> String {
    format!(
        "admin:\n  address: {}\nstatic_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}",
        address("127.0.0.1", ADMIN_PORT)
    )
}

fn address(ip: &str, port: u16) -> String {
    format!("{{socket_address: {{address: {ip}, port_value: {port}}}}}")
}

fn outbound_listeners() -> String {
    let http = |port: u16, codec: &str| {
        chain(
            &format!("{{destination_port: {port}}}"),
            &http_filter(&Http {
                codec,
                hosts: &[
                    ("web", "web"),
                    ("web-h2", "web-h2"),
                    ("web-echo", "web-h2"),
                    ("web-grpc", "web-h2"),
                ],
                ..Http::default()
            }),
            "",
        )
    };
    let tcp = |port: u16, cluster: &str| {
        chain(
            &format!("{{destination_port: {port}}}"),
            &tcp_filter(cluster),
            "",
        )
    };
    let chains = [
        http(80, "HTTP1"),
        http(81, "HTTP2"),
        http(83, "HTTP2"),
        http(84, "HTTP2"),
        tcp(82, "bytes"),
        tcp(5201, "bulk"),
    ];
    redirected(&chains.concat())
}

/// The listener to which a pod's own connections are redirected.
pub(crate) fn redirected(chains: &str) -> String {
    format!(
        "  - name: outbound
    address: {}
    listener_filters:
    - name: original_dst
      typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    filter_chains:
{chains}",
        address("127.0.0.1", 15101)
    )
}

fn inbound_listeners(folder: &Path) -> String {
    let tls = tls(
        folder,
        Side::Server,
        Pod::Server.name(),
        &[Pod::Client.identity()],
        "h2",
    );
    let listener = |name: &str, port: u16, filter: &str| listener(name, port, filter, &tls);
    let hosts = [
        ("web", "web"),
        ("web-h2", "web-h2"),
        ("web-echo", "web-echo"),
        ("web-grpc", "web-grpc"),
    ];
    // Only ports that the redirection leaves alone can be called directly.
    [
        listener(
            "mesh",
            15108,
            &http_filter(&Http {
                codec: "HTTP2",
                hosts: &hosts,
                ..Http::default()
            }),
        ),
        listener("bytes", 15106, &tcp_filter("bytes")),
        listener("bulk", 15190, &tcp_filter("bulk")),
    ]
    .concat()
}

/// A listener that is called directly.
pub(crate) fn listener(name: &str, port: u16, filter: &str, tls: &str) -> String {
    format!(
        "  - name: {name}\n    address: {}\n    filter_chains:\n{}",
        address("0.0.0.0", port),
        chain("{}", filter, tls)
    )
}

pub(crate) fn chain(matching: &str, filter: &str, transport: &str) -> String {
    format!("    - filter_chain_match: {matching}\n      filters:\n{filter}{transport}")
}

/// What a listener does with HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Http<'a> {
    pub(crate) codec: &'a str,
    /// Host, and the cluster that it is routed to.
    pub(crate) hosts: &'a [(&'a str, &'a str)],
    /// More about every route, each beginning with a comma.
    pub(crate) route: &'a str,
    /// What comes before the router, as lines of the list.
    pub(crate) filters: &'a str,
}

pub(crate) fn http_filter(http: &Http<'_>) -> String {
    let Http {
        codec,
        route,
        filters,
        ..
    } = http;
    let hosts: String = http
        .hosts
        .iter()
        .map(|(host, cluster)| {
            format!(
                "            - {{name: {host}, domains: [\"{host}\"], routes: [{{match: {{prefix: \"/\"}}, route: {{cluster: {cluster}{route}}}}}]}}\n"
            )
        })
        .collect();
    format!(
        "      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          codec_type: {codec}
          generate_request_id: false
          route_config:
            name: local
            virtual_hosts:
{hosts}          http_filters:
{filters}          - name: router
            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"
    )
}

fn tcp_filter(cluster: &str) -> String {
    format!(
        "      - name: tcp
        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: {cluster}, cluster: {cluster}}}
"
    )
}

pub(crate) fn outbound_clusters(folder: &Path) -> String {
    let server = SERVER_IP.to_string();
    let peers = [Pod::Server.identity()];
    let secured = |alpn| tls(folder, Side::Client, Pod::Client.name(), &peers, alpn);
    [
        pair(&server, "web", 15108, true, &secured("h2")),
        pair(&server, "web-h2", 15108, true, &secured("h2")),
        pair(&server, "bytes", 15106, false, &secured("")),
        pair(&server, "bulk", 15190, false, &secured("")),
    ]
    .concat()
}

fn inbound_clusters() -> String {
    let local = |name: &str, port, http2| pair("127.0.0.1", name, port, http2, "");
    [
        local("web", 8080, false),
        local("web-h2", 8082, true),
        local("web-grpc", 8084, true),
        local("web-echo", 8085, true),
        local("bytes", 8083, false),
        local("bulk", 5201, false),
    ]
    .concat()
}

fn pair(ip: &str, name: &str, port: u16, http2: bool, transport: &str) -> String {
    cluster(&Upstream {
        name,
        endpoints: &[(ip.to_owned(), port)],
        http2,
        transport,
        // The default of 1024 pending connections and requests would refuse a burst.
        settings: "connect_timeout: 2s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}",
    })
}

/// Where calls go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream<'a> {
    pub(crate) name: &'a str,
    pub(crate) endpoints: &'a [(String, u16)],
    pub(crate) http2: bool,
    /// What [`tls`] gives, or nothing.
    pub(crate) transport: &'a str,
    /// Limits, times and balancing, as lines.
    pub(crate) settings: &'a str,
}

pub(crate) fn cluster(upstream: &Upstream<'_>) -> String {
    let Upstream {
        name,
        transport,
        settings,
        ..
    } = upstream;
    let protocol = if upstream.http2 {
        "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"
    } else {
        ""
    };
    let endpoints: Vec<_> = upstream
        .endpoints
        .iter()
        .map(|(ip, port)| format!("{{endpoint: {{address: {}}}}}", address(ip, *port)))
        .collect();
    format!(
        "  - name: {name}
    type: STATIC
    {settings}
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}
{protocol}{}",
        endpoints.join(", "),
        transport
            .replace("      transport_socket", "    transport_socket")
            .replace("\n        ", "\n      ")
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Mutual TLS 1.3 with the certificate `own`, in which the peer must be one of `peers`.
/// Indented for a filter chain. `alpn`: protocols with commas between them, or nothing.
pub(crate) fn tls(folder: &Path, side: Side, own: &str, peers: &[SpiffeId], alpn: &str) -> String {
    let folder = folder.display();
    let (name, required) = match side {
        Side::Client => ("UpstreamTlsContext", ""),
        Side::Server => ("DownstreamTlsContext", ", require_client_certificate: true"),
    };
    let alpn = if alpn.is_empty() {
        String::new()
    } else {
        format!(", alpn_protocols: [{alpn}]")
    };
    let peers: Vec<_> = peers
        .iter()
        .map(|peer| {
            format!(
                "{{san_type: URI, matcher: {{exact: \"{}\"}}}}",
                peer.as_str()
            )
        })
        .collect();
    format!(
        "      transport_socket:
        name: tls
        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{name}{required}, common_tls_context: {{tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}{alpn}, tls_certificates: [{{certificate_chain: {{filename: {folder}/{own}.pem}}, private_key: {{filename: {folder}/{own}.key}}}}], validation_context: {{trusted_ca: {{filename: {folder}/root.pem}}, match_typed_subject_alt_names: [{}]}}}}}}
",
        peers.join(", ")
    )
}
