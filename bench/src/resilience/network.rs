//! Pods as network namespaces around a router, which can lose one of them without a word.
//!
//! Pod number n is 10.78.n.1, and the router is 10.78.n.254 to it. In the router's
//! namespace listens the stand-in controller.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::namespaces::{Namespace, cable};

/// Where proxies find the stand-in controller, at the router's address.
pub(super) const CONTROL: u16 = 8443;

#[derive(Debug)]
pub(super) struct Network {
    pods: Vec<Namespace>,
    pub(super) router: Namespace,
}

impl Network {
    /// One namespace for each name, all of which reach each other.
    pub(super) fn new(names: &[&str]) -> Result<Self> {
        let router = Namespace::new("router")?;
        router.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        let mut network = Self {
            pods: Vec::new(),
            router,
        };
        for (at, name) in names.iter().enumerate() {
            let pod = Namespace::new(name)?;
            let device = format!("to{at}");
            cable(
                (&pod, "eth0", ip(at)),
                (&network.router, &device, gateway(at)),
            )?;
            pod.ip(&format!("route add default via {}", gateway(at)))?;
            pod.many_ports()?;
            network.pods.push(pod);
        }
        Ok(network)
    }

    pub(super) fn pod(&self, at: usize) -> &Namespace {
        &self.pods[at]
    }

    /// Drops whatever goes to a pod or comes from it. Neither end gets an error.
    pub(super) fn lose(&self, at: usize) -> Result<()> {
        for direction in ["to", "from"] {
            self.router
                .ip(&format!("rule add {direction} {} blackhole", ip(at)))?;
        }
        Ok(())
    }
}

/// The address of a pod.
pub(super) fn ip(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, third(at), 1)
}

fn gateway(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, third(at), 254)
}

/// The stand-in controller, as a pod finds it.
pub(super) fn controller(at: usize) -> SocketAddr {
    SocketAddr::from((gateway(at), CONTROL))
}

/// A scenario has some ten pods.
fn third(at: usize) -> u8 {
    u8::try_from(at + 1).unwrap_or(u8::MAX)
}
