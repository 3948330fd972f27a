//! Reports the application's load to peers.

use std::time::Duration;

use http::HeaderMap;
use http::response::Parts;

use crate::http::deadline::now;
use crate::http::orca::{self, Utilization};
use crate::inbound::connection::Connection;
use crate::mesh::load::{self, Answered, LastReportedLoad, TooManyPorts};

impl Connection {
    /// The application answered so after this time: a peer's proxy gets the load, where it does
    /// not know it. Other callers have received nothing.
    pub(super) fn write_load(&self, parts: &mut Parts, took: Duration) {
        let answered = Answered {
            port: self.local.port(),
            now: now(),
            took,
            reported: self.utilization(orca::in_head(&parts.headers)),
        };
        let (is_proxy, no_load) = (self.is_of_proxy(), LastReportedLoad::default());
        let last_load = if is_proxy { self.last_load() } else { &no_load };
        match self.proxy.loads.answered(&answered, last_load) {
            Ok(Some(percent)) if is_proxy => load::write(&mut parts.headers, percent),
            Ok(_) => {}
            Err(full) => self.too_many(full),
        }
    }

    /// The trailers of a response may carry the load as well.
    pub(super) fn read_trailers(&self, trailers: &HeaderMap) {
        let reported = self.utilization(orca::in_trailers(trailers));
        if let Some(percent) = reported
            && let Err(full) = self.proxy.loads.report(self.local.port(), now(), percent)
        {
            self.too_many(full);
        }
    }

    fn utilization(&self, reported: Utilization) -> Option<u8> {
        match reported {
            Utilization::Nothing => None,
            Utilization::Percent(percent) => Some(percent),
            Utilization::Unreadable => {
                self.proxy.telemetry.metrics.unreadable_load();
                None
            }
        }
    }

    fn too_many(&self, _: TooManyPorts) {
        self.proxy.telemetry.metrics.limit("load-ports");
    }
}
