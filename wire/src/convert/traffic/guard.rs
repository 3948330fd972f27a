//! What the proxy in front of a pod does with requests, by port of the container.

use std::collections::BTreeMap;

use policy::traffic::pod::{GuardPort, PodGuard};

use super::values::{tcp_messages, tcp_targets};
use super::{gather, limited, whole};
use crate::convert::error::BadResource;
use crate::convert::port::port;
use crate::v1;

impl TryFrom<&v1::Guard> for PodGuard {
    type Error = BadResource;

    fn try_from(message: &v1::Guard) -> Result<Self, BadResource> {
        let ports = message.ports.iter().enumerate().map(|(i, one)| {
            let read = || Ok((port("port", one.port)?, gather(&one.rules)?));
            read().map_err(|bad: BadResource| bad.within(format_args!("ports[{i}]")))
        });
        let ports = ports.collect::<Result<BTreeMap<u16, GuardPort>, _>>()?;
        let read_only = message.read_only.as_ref();
        let read_only = read_only.map(|one| tcp_targets(&one.allow_tcp));
        Ok(Self {
            ports,
            read_only: read_only.transpose()?,
        })
    }
}

impl From<&PodGuard> for v1::Guard {
    fn from(guard: &PodGuard) -> Self {
        let ports = guard.ports.iter().map(|(port, traffic)| {
            let mut rules = Vec::new();
            limited(&traffic.timeouts, &mut rules);
            limited(&traffic.rate_limits, &mut rules);
            limited(&traffic.priority, &mut rules);
            whole(&traffic.overload, &mut rules);
            v1::GuardPort {
                port: u32::from(*port),
                rules,
            }
        });
        let read_only = guard.read_only.as_deref();
        Self {
            ports: ports.collect(),
            read_only: read_only.map(|targets| v1::ReadOnly {
                allow_tcp: tcp_messages(targets),
            }),
        }
    }
}
