//! TCPRoute and UDPRoute: which ports they stand for. They differ in nothing else.

use serde_json::Value;

use super::{Judge, Mistake, Mistakes, RoutePorts, ValidationContext, shape};
use crate::smi::{TcpRouteSpec, UdpRouteSpec};

macro_rules! judge_ports {
    ($($spec:ty),+) => {$(
        impl Judge for $spec {
            type Judged = RoutePorts;

            const UNREADABLE: &'static str = "the route stands for no port";

            fn judge(&self, _: &ValidationContext<'_>) -> (RoutePorts, Vec<Mistake>) {
                let mut mistakes = Mistakes::default();
                let ports = self.matches.as_ref().and_then(|m| m.ports.as_deref());
                let ports = RoutePorts::judged(ports, &mut mistakes);
                (ports, mistakes.0)
            }

            fn unreadable(_: &Value, _: &ValidationContext<'_>) -> RoutePorts {
                RoutePorts::none()
            }

            fn misshapen(written: &Value, mistakes: &mut Mistakes) {
                shape::check_object("spec.matches", &written["matches"], mistakes);
            }
        }
    )+};
}

judge_ports!(TcpRouteSpec, UdpRouteSpec);
