//! One system under test in its place: no proxy between client and server, a pair
//! of Envoys, or a pair of Weft's proxies.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::control::{self, Controller};
use crate::edge;
use crate::envoy;
use crate::namespaces::{
    CONTROL_FOR_CLIENT, CONTROL_FOR_SERVER, Namespace, Namespaces, Process, SERVER_IP, Who,
};
use crate::resources::{NAMESPACE, Pod, SERVICE_IP, TRUST_DOMAIN};
use crate::sidecar::{self, READY_WITHIN, Sidecar, WEFT_ADMIN, get};
use crate::standing_in::Authority;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SystemKind {
    Direct,
    Envoy(PathBuf),
    Weft(PathBuf),
}

/// Ports that the bench calls, as numbers of the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Http1 = 80,
    Http2 = 81,
    Bytes = 82,
    /// HTTP/2 whose bodies come back.
    Echo = 83,
    Grpc = 84,
    /// HTTP/1.1 to a server without a proxy, once that [runs](System::start_plain).
    Plain = 85,
    Bulk = 5201,
    /// HTTP/1.1 to what [stands at the edge](System::start_edge), whatever the Service is.
    Edge,
    /// The same in TLS.
    EdgeTls,
}

impl Port {
    /// Where the server itself listens.
    const fn of_server(self) -> u16 {
        match self {
            Self::Http1 | Self::Plain | Self::Edge | Self::EdgeTls => 8080,
            Self::Http2 => 8082,
            Self::Bytes => 8083,
            Self::Echo => 8085,
            Self::Grpc => 8084,
            Self::Bulk => 5201,
        }
    }

    /// Envoy routes by this name.
    pub(crate) const fn host(self) -> &'static str {
        match self {
            Self::Http2 => "web-h2",
            Self::Echo => "web-echo",
            Self::Grpc => "web-grpc",
            Self::Http1 | Self::Bytes | Self::Plain | Self::Bulk | Self::Edge | Self::EdgeTls => {
                "web"
            }
        }
    }

    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::EdgeTls => "https",
            _ => "http",
        }
    }
}

#[derive(Debug)]
pub(crate) struct System {
    /// Column of the tables.
    pub(crate) name: &'static str,
    pub(crate) kind: SystemKind,
    // Dropped in this order: processes, then namespaces.
    pub(crate) pair: Option<Pair>,
    _servers: Vec<Process>,
    pub(crate) namespaces: Namespaces,
    /// For Weft's proxies.
    pub(crate) controller: Option<Controller>,
    /// Weft's program at the edge, if that is measured.
    pub(crate) gateway: Option<PathBuf>,
    folder: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: Process,
    pub(crate) server: Process,
}

impl System {
    /// A pair of Weft's proxies alone, not started yet.
    pub(crate) fn weft(proxy: &Path, nginx: &Path, shared: &Path) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let kind = SystemKind::Weft(proxy.to_owned());
        Self::new("weft", kind, proxy, nginx, &authority, shared)
    }

    /// Namespaces, server and redirection; no proxy yet. `shared` holds certificates
    /// and files that are the same for all systems.
    pub(crate) fn new(
        name: &'static str,
        kind: SystemKind,
        capture: &Path,
        nginx: &Path,
        authority: &Arc<Authority>,
        shared: &Path,
    ) -> Result<Self> {
        let folder = shared.join(name);
        fs::create_dir(&folder)?;
        let namespaces = Namespaces::new(name)?;
        let mut servers = vec![start_nginx(&namespaces.server, nginx, shared, &folder)?];
        servers.push(namespaces.server.start(
            Who::Root,
            &folder.join("iperf3.log"),
            &["iperf3", "-s", "-p", "5201"],
            &[],
        )?);
        for port in [Port::Grpc, Port::Echo] {
            crate::grpc::start(&namespaces.server, port.of_server())?;
        }
        if kind != SystemKind::Direct {
            // Both pairs stand behind the rules that a user's pod gets.
            let capture = capture
                .to_str()
                .context("the path of the proxy is not UTF-8")?;
            namespaces.client.run(&[capture, "capture"])?;
            namespaces.server.run(&[capture, "capture"])?;
        }
        let controller = match &kind {
            SystemKind::Direct => None,
            SystemKind::Envoy(_) => {
                envoy::write(&folder, authority)?;
                edge::write_envoy(&folder)?;
                None
            }
            SystemKind::Weft(_) => {
                fs::write(folder.join("root.pem"), authority.root.cert_pem())?;
                for pod in [Pod::Client, Pod::Server] {
                    fs::write(folder.join(pod.name()), pod.name())?;
                }
                Some(control::start(&namespaces, Arc::clone(authority))?)
            }
        };
        Ok(Self {
            name,
            kind,
            pair: None,
            _servers: servers,
            namespaces,
            controller,
            gateway: None,
            folder,
        })
    }

    /// Starts a server that no proxy stands beside, where the stand-in controller is.
    pub(crate) fn start_plain(&mut self, nginx: &Path, shared: &Path) -> Result<()> {
        let folder = self.folder.join("plain");
        fs::create_dir(&folder)?;
        let server = start_nginx(&self.namespaces.control, nginx, shared, &folder)?;
        self._servers.push(server);
        Ok(())
    }

    /// The process that answers, for the figure of the direct path.
    pub(crate) fn server(&self) -> Option<&Process> {
        self._servers.first()
    }

    pub(crate) fn target(&self, port: Port) -> SocketAddr {
        match (&self.kind, port) {
            (_, Port::Edge) => SocketAddr::from((Ipv4Addr::LOCALHOST, edge::HTTP)),
            (_, Port::EdgeTls) => SocketAddr::from((Ipv4Addr::LOCALHOST, edge::HTTPS)),
            (SystemKind::Direct, _) => SocketAddr::from((SERVER_IP, port.of_server())),
            _ => SocketAddr::from((SERVICE_IP, port as u16)),
        }
    }

    /// Starts both proxies anew and makes a first request. Gives the time from
    /// the start of the client's proxy to its readiness.
    pub(crate) fn start_pair(&mut self) -> Result<Option<Duration>> {
        self.pair = None;
        if self.kind == SystemKind::Direct {
            return Ok(None);
        }
        let server = self.start_proxy(Pod::Server)?;
        self.wait_ready(Pod::Server, &server)?;
        let client = self.start_proxy(Pod::Client)?;
        let took = self.wait_ready(Pod::Client, &client)?;
        self.pair = Some(Pair { client, server });
        self.first_answer(Port::Http1)?;
        Ok(Some(took))
    }

    /// The program that stands at the edge of the mesh, if this system has one.
    pub(crate) fn at_edge(&self) -> Option<&Path> {
        match &self.kind {
            SystemKind::Direct => None,
            SystemKind::Envoy(binary) => Some(binary),
            SystemKind::Weft(_) => self.gateway.as_deref(),
        }
    }

    /// Starts the server's proxy anew, and in the client's place what stands at the edge. It makes
    /// a first request.
    pub(crate) fn start_edge(&mut self) -> Result<()> {
        self.pair = None;
        let server = self.start_proxy(Pod::Server)?;
        self.wait_ready(Pod::Server, &server)?;
        let binary = self.at_edge().context("nothing stands at the edge")?;
        let sidecar = self.sidecar(Pod::Client);
        let client = match self.kind {
            SystemKind::Envoy(_) => sidecar.start_envoy_as(binary, edge::NAME)?,
            SystemKind::Direct | SystemKind::Weft(_) => sidecar.start_weft(binary)?,
        };
        self.wait_ready(Pod::Client, &client)?;
        self.pair = Some(Pair { client, server });
        self.first_answer(Port::Edge)
    }

    fn first_answer(&self, port: Port) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        while self.get(port, "/bench").map(|(status, _)| status).ok() != Some(200) {
            ensure!(
                Instant::now() < until,
                "{}: no first answer; {}",
                self.name,
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn stop_pair(&mut self) {
        self.pair = None;
    }

    pub(crate) fn pair_alive(&mut self) -> Result<()> {
        let logs = self.logs();
        if let Some(pair) = &mut self.pair {
            pair.client.alive().with_context(|| logs.clone())?;
            pair.server.alive().context(logs)?;
        }
        if let Some(controller) = &self.controller {
            let refusals = controller
                .refusals
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            ensure!(
                refusals.is_empty(),
                "a proxy refused configuration: {refusals:?}"
            );
        }
        Ok(())
    }

    fn start_proxy(&self, pod: Pod) -> Result<Process> {
        let sidecar = self.sidecar(pod);
        match &self.kind {
            SystemKind::Direct => bail!("no proxy stands between"),
            SystemKind::Envoy(binary) => sidecar.start_envoy(binary),
            SystemKind::Weft(binary) => sidecar.start_weft(binary),
        }
    }

    fn sidecar(&self, pod: Pod) -> Sidecar<'_> {
        let control = match pod {
            Pod::Client => CONTROL_FOR_CLIENT,
            Pod::Server => CONTROL_FOR_SERVER,
        };
        Sidecar {
            within: self.namespace(pod),
            namespace: NAMESPACE,
            pod: pod.name(),
            ip: pod.ip(),
            trust_domain: TRUST_DOMAIN,
            controller: SocketAddr::from((control, control::PORT)),
            folder: &self.folder,
        }
    }

    fn wait_ready(&self, pod: Pod, process: &Process) -> Result<Duration> {
        let ready = sidecar::wait_ready(self.namespace(pod), self.admin_port(), process);
        ready.with_context(|| self.logs())
    }

    fn admin_port(&self) -> u16 {
        match self.kind {
            SystemKind::Envoy(_) => envoy::ADMIN_PORT,
            SystemKind::Direct | SystemKind::Weft(_) => WEFT_ADMIN,
        }
    }

    pub(crate) fn namespace(&self, pod: Pod) -> &Namespace {
        match pod {
            Pod::Client => &self.namespaces.client,
            Pod::Server => &self.namespaces.server,
        }
    }

    /// One page of a proxy's admin port.
    pub(crate) fn admin(&self, pod: Pod, path: &str) -> Result<String> {
        sidecar::page(self.namespace(pod), self.admin_port(), path)
            .with_context(|| pod.name().to_owned())
    }

    /// One request of the client.
    pub(crate) fn get(&self, port: Port, path: &str) -> Result<(u16, String)> {
        let target = self.target(port);
        self.namespaces
            .client
            .within(|| get(target, port.host(), path))
    }

    /// A file that all systems share.
    pub(crate) fn shared(&self, name: &str) -> String {
        self.folder
            .with_file_name(name)
            .to_string_lossy()
            .into_owned()
    }

    /// The last lines that the proxies wrote.
    fn logs(&self) -> String {
        let mut text = format!("logs in {}:", self.folder.display());
        for pod in [Pod::Client, Pod::Server] {
            let log = fs::read_to_string(self.folder.join(format!("{}.log", pod.name())))
                .unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(5)..] {
                text.push_str(&format!("\n  {}: {line}", pod.name()));
            }
        }
        text
    }
}

fn start_nginx(
    namespace: &Namespace,
    nginx: &Path,
    shared: &Path,
    folder: &Path,
) -> Result<Process> {
    let config = folder.join("nginx.conf");
    // One process: master and worker would be two to count.
    let text = format!(
        "daemon off; master_process off; worker_rlimit_nofile 20000; pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 16000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; types {{}} default_type text/plain;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  http2_max_requests 1000000000; http2_recv_timeout 600s; http2_idle_timeout 600s;
  server {{
    listen 8080 backlog=4096; listen 8081 backlog=4096; listen 8083 backlog=4096; listen 8082 http2;
    location / {{ return 200 ok; }}
    location = /bench10k {{ alias {shared}/10k; }}
    location = /bench-large {{ alias {shared}/large; sendfile on; }}
  }}
}}
",
        folder = folder.display(),
        shared = shared.display(),
    );
    fs::write(&config, text)?;
    let (nginx, config, prefix) = (
        nginx.to_string_lossy(),
        config.to_string_lossy(),
        folder.to_string_lossy(),
    );
    let line = [&*nginx, "-c", &config, "-p", &prefix];
    namespace.start(Who::Root, &folder.join("nginx-out.log"), &line, &[])
}

/// Opens `count` connections with one request each and leaves them open.
pub(crate) fn hold(target: SocketAddr, host: &str, count: usize) -> Result<Vec<TcpStream>> {
    let request = format!("GET /bench HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut connections = Vec::with_capacity(count);
    let mut answer = [0; 2048];
    for _ in 0..count {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        // The small answer comes in one piece from every server of the bench.
        let read = stream.read(&mut answer)?;
        ensure!(
            answer[..read].starts_with(b"HTTP/1.1 200"),
            "a held connection was not served"
        );
        connections.push(stream);
    }
    Ok(connections)
}

/// Opens a connection to each address and closes it again.
pub(crate) fn touch(targets: impl Iterator<Item = SocketAddr>, each: Duration) -> Result<()> {
    for target in targets {
        debug_assert!(matches!(target.ip(), IpAddr::V4(_)));
        drop(TcpStream::connect_timeout(&target, Duration::from_secs(5))?);
        std::thread::sleep(each);
    }
    Ok(())
}
