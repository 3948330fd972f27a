//! The workload itself: its addresses, its identity, its namespace and its pod.

use std::net::IpAddr;

use policy::name::SpiffeId;

/// The workload itself.
#[derive(Clone, Debug)]
pub struct Own {
    pub namespace: String,
    pub pod: String,
    pub identity: SpiffeId,
    /// The first of its addresses.
    pub ip: IpAddr,
    /// The same as text: the caller's name for session affinity.
    pub name: String,
    ips: Vec<IpAddr>,
}

impl Own {
    /// `None` without an address.
    #[must_use]
    pub fn new(
        namespace: String,
        pod: String,
        identity: SpiffeId,
        ips: Vec<IpAddr>,
    ) -> Option<Self> {
        let ip = *ips.first()?;
        Some(Self {
            namespace,
            pod,
            identity,
            ip,
            name: ip.to_string(),
            ips,
        })
    }

    /// True for the workload's own addresses, in either spelling of IPv4.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip.to_canonical())
    }
}
