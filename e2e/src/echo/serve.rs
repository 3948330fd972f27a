//! The server: binds the ports, serves until SIGTERM, then ends as fast as it can without
//! losing a request: listeners close at once, requests in flight are finished.
//!
//! A mesh that loses requests with such an application would lose them with
//! most others too.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use tokio_rustls::TlsAcceptor;

use super::{
    app::App,
    call,
    fault::Fault,
    next::{Next, Propagate},
    posted::Posted,
    reply,
    request_log::RequestLog,
    response::Body,
    seen::Calls,
    settings::Settings,
    tcp, tls,
};

/// Kubernetes grants 30 s by default; a request that takes longer is cut by the
/// kubelet anyway.
const FINISH: Duration = Duration::from_secs(28);

/// A TLS client that says nothing must not hold a task for ever.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a port does with an accepted connection.
#[derive(Clone, Copy, Debug)]
enum Port {
    Http,
    Tls,
    Call,
    Echo,
    Banner,
}

/// Listeners that are bound and not yet served.
#[derive(Debug)]
pub struct Bound {
    app: Arc<App>,
    listeners: Vec<(TcpListener, Port)>,
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight.
pub async fn until_terminated(settings: Settings) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let bound = Bound::bind(settings).await?;
    println!(
        "weft-echo {} {} listens",
        bound.app.settings.pod, bound.app.settings.version
    );
    bound
        .serve(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}

impl Bound {
    /// Binds all five ports, and the TLS port when there is one. Port 0 takes a free one, see [`Bound::addresses`].
    pub async fn bind(settings: Settings) -> anyhow::Result<Self> {
        let mut ports = vec![
            (settings.http_port, Port::Http),
            (settings.tcp_port, Port::Echo),
            (settings.banner_port, Port::Banner),
            (settings.call_port, Port::Call),
            (settings.outside_call_port, Port::Call),
        ];
        ports.extend(settings.tls_port.map(|port| (port, Port::Tls)));
        let tls = match settings.tls_port {
            Some(_) => Some(tls::config(&settings.pod)?),
            None => None,
        };
        let next = settings.next.as_deref();
        let next = next.map(|url| Next::new(url, settings.propagate));
        let next = next.transpose()?;
        let witness = settings.witness.as_deref();
        let witness = witness.map(|url| Next::new(url, Propagate::Trace));
        let witness = witness.transpose().context("WITNESS")?;
        let fault = Fault::default();
        if let Some(order) = &settings.fault {
            fault
                .set(order.as_bytes(), Instant::now())
                .context("FAULT")?;
        }
        let mut listeners = Vec::with_capacity(ports.len());
        for (port, kind) in ports {
            listeners.push((listen(&settings, port).await?, kind));
        }
        Ok(Self {
            app: Arc::new(App {
                settings,
                calls: Calls::default(),
                posted: Posted::default(),
                request_count: AtomicU32::new(0),
                fault,
                requests: RequestLog::default(),
                next,
                witness,
                tls,
            }),
            listeners,
        })
    }

    /// Local addresses in the order HTTP, TCP, banner, call, outside call, TLS.
    pub fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        self.listeners
            .iter()
            .map(|(listener, _)| Ok(listener.local_addr()?))
            .collect()
    }

    /// Serves until `stop` resolves and everything in flight has ended, at most
    /// 28 s later.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (closing, closed) = watch::channel(false);
        let mut accepting = JoinSet::new();
        for (listener, port) in self.listeners {
            accepting.spawn(accept(listener, port, self.app.clone(), closed.clone()));
        }
        stop.await;
        // Receivers see this before their next accept, so no listener outlives it.
        let _ = closing.send(true);
        let all = async { while accepting.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH, all).await.is_err() {
            eprintln!("weft-echo: connections were still open after {FINISH:?}");
        }
    }
}

async fn listen(settings: &Settings, port: u16) -> anyhow::Result<TcpListener> {
    if let Some(address) = settings.listen {
        let address = SocketAddr::new(address, port);
        return TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"));
    }
    // The IPv6 wildcard takes IPv4 too; a kernel without IPv6 refuses it.
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("0.0.0.0", port))
            .await
            .with_context(|| format!("listen on port {port}")),
    }
}

async fn accept(listener: TcpListener, port: Port, app: Arc<App>, closing: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    let mut stop = closing.clone();
    loop {
        tokio::select! {
            () = closed(&mut stop) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let _ = stream.set_nodelay(true);
                    open.spawn(serve_connection(stream, peer, port, app.clone(), closing.clone()));
                }
                // Out of file descriptors: wait for some to come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    port: Port,
    app: Arc<App>,
    mut closing: watch::Receiver<bool>,
) {
    let ending = closed(&mut closing);
    match port {
        // Bytes have no end of a request to wait for, so these close at once.
        Port::Echo => {
            tokio::select! { _ = tcp::echo(stream, &app.settings) => {}, () = ending => {} }
        }
        Port::Banner => {
            tokio::select! { _ = tcp::banner(stream, &app.settings) => {}, () = ending => {} }
        }
        Port::Tls => {
            let Some(config) = app.tls.clone() else {
                return;
            };
            let handshake = TlsAcceptor::from(config).accept(stream);
            let handshake = tokio::time::timeout(HANDSHAKE, handshake);
            if let Ok(Ok(stream)) = handshake.await {
                http(stream, peer, port, app, ending).await;
            }
        }
        Port::Http | Port::Call => http(stream, peer, port, app, ending).await,
    }
}

/// Serves HTTP/1.1 and HTTP/2 until the connection ends, or until what is in
/// flight has ended after `ending`.
async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    port: Port,
    app: Arc<App>,
    ending: impl Future<Output = ()>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let app = app.clone();
        async move {
            Ok::<Response<Body>, Infallible>(match port {
                Port::Call => call::answer(&app, request).await,
                _ => reply::answer(&app, peer, request).await,
            })
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    // A closed connection cancels its request, as for most servers: over HTTP/1.1 this is how
    // a proxy signals an application that the caller is gone.
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = ending => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Resolves when the listeners close; the guard of the value is not held on.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
