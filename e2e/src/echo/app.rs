//! The application, as every handler sees it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio_rustls::rustls::ServerConfig;

use super::{
    fault::Fault, next::Next, posted::Posted, request_log::RequestLog, seen::Calls,
    settings::Settings,
};

/// What every handler may read.
#[derive(Debug)]
pub struct App {
    pub settings: Settings,
    pub calls: Calls,
    /// What the HTTP port was sent as a collector of traces.
    pub posted: Posted,
    /// Requests of the HTTP port so far, for `FAIL_EVERY`.
    pub request_count: AtomicU32,
    /// The failure that was requested for the HTTP port.
    pub fault: Fault,
    /// What reached the HTTP port.
    pub requests: RequestLog,
    /// The next service, called before a request of the HTTP port is answered.
    pub next: Option<Next>,
    /// The witness, to which each request of the HTTP port is reported.
    pub witness: Option<Next>,
    /// Present when the TLS port is served.
    pub tls: Option<Arc<ServerConfig>>,
}

impl App {
    /// Whether this request is one of those that `FAIL_EVERY` fails.
    pub fn fails(&self) -> bool {
        let every = self.settings.fail_every;
        let before = self.request_count.fetch_add(1, Ordering::Relaxed);
        every != 0 && before.wrapping_add(1).is_multiple_of(every)
    }
}
