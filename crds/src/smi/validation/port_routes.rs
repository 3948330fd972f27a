//! Validates TCPRoutes and UDPRoutes, and parses their ports.

use serde_json::Value;

use super::{Mistake, Mistakes, Validate, ValidationContext, shape};
use crate::smi::{TcpRouteSpec, UdpRouteSpec};

macro_rules! validate_ports {
    ($($spec:ty),+) => {$(
        impl Validate for $spec {
            type Validated = RoutePorts;

            const UNREADABLE: &'static str = "the route stands for no port";

            fn validate(&self, _: &ValidationContext<'_>) -> (RoutePorts, Vec<Mistake>) {
                let mut mistakes = Mistakes::default();
                let ports = self.matches.as_ref().and_then(|m| m.ports.as_deref());
                let ports = RoutePorts::of_written(ports, &mut mistakes);
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

validate_ports!(TcpRouteSpec, UdpRouteSpec);

/// The ports that a route stands for, in the order in which they were written. `None` is
/// every port; a list that is empty because nothing in it could be used is no port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePorts(pub Option<Vec<u16>>);

impl RoutePorts {
    /// No port at all.
    pub(super) fn none() -> Self {
        Self(Some(Vec::new()))
    }

    /// Absent and empty mean every port.
    pub(super) fn of_written(written: Option<&[i64]>, mistakes: &mut Mistakes) -> Self {
        let Some(written) = written.filter(|ports| !ports.is_empty()) else {
            return Self(None);
        };
        let ports = written.iter().enumerate().filter_map(|(i, port)| {
            let field = format!("spec.matches.ports[{i}]");
            valid_port(&field, *port, mistakes)
        });
        Self(Some(ports.collect()))
    }
}

/// One port, unless there is no such port.
pub(crate) fn valid_port(field: &str, port: i64, mistakes: &mut Mistakes) -> Option<u16> {
    let number = u16::try_from(port).ok().filter(|number| *number != 0);
    if number.is_none() {
        let text = format!("is {port}, but a port is from 1 to 65535; it stands for no port");
        mistakes.invalid(field, text);
    }
    number
}
