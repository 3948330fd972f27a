//! Converts ports: numbers, sets of them, and declared protocols.

use policy::access::Ports;
use policy::protocol::{PortProtocols, PortRange, Protocol};

use super::error::BadResource;
use crate::v1;

/// Reads a port of `field`.
///
/// # Errors
/// When the number is none.
pub fn port(field: &str, raw: u32) -> Result<u16, BadResource> {
    match u16::try_from(raw) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(BadResource::new(field, format_args!("{raw} is no port"))),
    }
}

impl TryFrom<&v1::PortSet> for Ports {
    type Error = BadResource;

    fn try_from(message: &v1::PortSet) -> Result<Self, BadResource> {
        if message.any {
            return Ok(Self::Any);
        }
        let ports: Result<Vec<u16>, _> = message
            .ports
            .iter()
            .map(|raw| port("ports", *raw))
            .collect();
        Ok(Self::only(ports?))
    }
}

impl From<&Ports> for v1::PortSet {
    fn from(ports: &Ports) -> Self {
        match ports {
            Ports::Any => Self {
                any: true,
                ports: Vec::new(),
            },
            Ports::Only(ports) => Self {
                any: false,
                ports: ports.iter().copied().map(u32::from).collect(),
            },
        }
    }
}

/// Declared protocols of ports, as a workload carries them.
pub fn port_protocols(messages: &[v1::PortProtocol]) -> Result<PortProtocols, BadResource> {
    let declared: Result<Vec<_>, BadResource> = messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let range = range(message.first, message.last)
                .map_err(|bad| bad.within(format_args!("ports[{index}]")))?;
            Ok((range, Protocol::from(message.protocol())))
        })
        .collect();
    declared.map(PortProtocols::new)
}

/// The ports of a strict workload that take plaintext.
pub fn permissive_ports(messages: &[v1::PortRange]) -> Result<Vec<PortRange>, BadResource> {
    let read = |(index, message): (usize, &v1::PortRange)| {
        range(message.first, message.last)
            .map_err(|bad| bad.within(format_args!("permissivePorts[{index}]")))
    };
    messages.iter().enumerate().map(read).collect()
}

fn range(first: u32, last: u32) -> Result<PortRange, BadResource> {
    let (first, last) = (port("first", first)?, port("last", last)?);
    PortRange::new(first, last).ok_or_else(|| BadResource::new("last", "is less than first"))
}

/// What [`permissive_ports`] reads.
#[must_use]
pub fn port_range(range: PortRange) -> v1::PortRange {
    v1::PortRange {
        first: range.first().into(),
        last: range.last().into(),
    }
}

/// One range of ports that is declared to carry a protocol: what [`port_protocols`] reads.
pub fn port_protocol((range, protocol): (PortRange, Protocol)) -> v1::PortProtocol {
    v1::PortProtocol {
        first: range.first().into(),
        last: range.last().into(),
        protocol: v1::Protocol::from(protocol).into(),
    }
}
