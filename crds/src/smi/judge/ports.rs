//! Ports of TCPRoutes and UDPRoutes.

use super::Mistakes;

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
    pub(super) fn judged(written: Option<&[i64]>, mistakes: &mut Mistakes) -> Self {
        let Some(written) = written.filter(|ports| !ports.is_empty()) else {
            return Self(None);
        };
        let ports = written.iter().enumerate().filter_map(|(i, port)| {
            let field = format!("spec.matches.ports[{i}]");
            judged_port(&field, *port, mistakes)
        });
        Self(Some(ports.collect()))
    }
}

/// One port, unless there is no such port.
pub(crate) fn judged_port(field: &str, port: i64, mistakes: &mut Mistakes) -> Option<u16> {
    let number = u16::try_from(port).ok().filter(|number| *number != 0);
    if number.is_none() {
        let text = format!("is {port}, but a port is from 1 to 65535; it stands for no port");
        mistakes.invalid(field, text);
    }
    number
}
