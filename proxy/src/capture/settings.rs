//! Parses the arguments of `weft-proxy capture`: which processes, ports and networks are exempt
//! from redirection, and whether rules are written, checked, or awaited from the node.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use policy::protocol::PortRange;
use policy::well_known::PROXY_UID;
use runtime::env::EnvReader;

/// The proxy's user; its connections are not redirected.
pub(crate) const UID: u32 = PROXY_UID;
/// The proxy's group, exempt like the user.
pub(crate) const GID: u32 = PROXY_UID;

/// Most nets in a skip list. Every entry is a rule that each new connection
/// walks, and full lists must fit into one netlink message of 200 KiB.
pub(crate) const MAX_NETS: usize = 128;

/// What is written, and whether it is written and proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub skip_inbound_ports: Vec<PortRange>,
    pub skip_outbound_ports: Vec<PortRange>,
    pub skip_outbound_cidrs: Vec<IpNet>,
    pub then: Then,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    /// Write the rules and trust the kernel's word.
    #[default]
    Write,
    /// Write the rules, then prove that they work.
    WriteAndCheck,
    /// Check rules that another program wrote.
    CheckOnly,
    /// Wait until the node's agent has written the rules, then prove that they work.
    ByNode,
}

const USAGE: &str = "usage: weft-proxy capture [--check | --check-only | --by-node] \
    [--skip-inbound-ports 25,3000-3010] [--skip-outbound-ports LIST] \
    [--skip-outbound-cidrs 10.0.0.0/8,fd00::/8]";

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadArguments {
    #[error("unknown argument {0:?}; {USAGE}")]
    Unknown(String),
    #[error("{0} needs a value; {USAGE}")]
    NoValue(String),
    #[error("{option}: {reason}")]
    BadList { option: String, reason: String },
}

impl Settings {
    /// Reads the arguments behind `capture`, as `--name value` or `--name=value`.
    /// An empty list is a list of nothing.
    ///
    /// # Errors
    /// The first argument that is not understood.
    pub(crate) fn from_arguments(
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Self, BadArguments> {
        let mut settings = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--check" => settings.then = Then::WriteAndCheck,
                "--check-only" => settings.then = Then::CheckOnly,
                "--by-node" => settings.then = Then::ByNode,
                _ => {
                    let (option, value) = match argument.split_once('=') {
                        Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                        None => (argument, None),
                    };
                    let mut list = || {
                        let value = value.clone().or_else(|| arguments.next());
                        value.ok_or_else(|| BadArguments::NoValue(option.clone()))
                    };
                    match option.as_str() {
                        "--skip-inbound-ports" => {
                            settings.skip_inbound_ports = ports(&option, &list()?)?
                        }
                        "--skip-outbound-ports" => {
                            settings.skip_outbound_ports = ports(&option, &list()?)?
                        }
                        "--skip-outbound-cidrs" => {
                            settings.skip_outbound_cidrs = cidrs(&option, &list()?)?
                        }
                        _ => return Err(BadArguments::Unknown(option)),
                    }
                }
            }
        }
        Ok(settings)
    }

    pub(super) fn skips_port(&self, port: u16) -> bool {
        self.skip_outbound_ports
            .iter()
            .any(|range| range.contains(port))
    }

    pub(super) fn skips_address(&self, address: IpAddr) -> bool {
        self.skip_outbound_cidrs
            .iter()
            .any(|net| net.contains(&address))
    }
}

/// The address of the one Service that every pod gets in its environment, that of the API server.
/// `None` where it is a name, which is an address outside the cluster. Kubernetes writes it, so
/// an unreadable value is no user's error; it only leaves less to check.
pub(crate) fn known_service(mut env: EnvReader) -> Option<SocketAddr> {
    let ip: IpAddr = env.optional("KUBERNETES_SERVICE_HOST")?;
    let port: u16 = env.optional("KUBERNETES_SERVICE_PORT")?;
    Some(SocketAddr::new(ip, port))
}

pub(crate) fn ports(option: &str, list: &str) -> Result<Vec<PortRange>, BadArguments> {
    PortRange::parse_list(list).map_err(|bad| BadArguments::BadList {
        option: option.to_owned(),
        reason: bad.to_string(),
    })
}

pub(crate) fn cidrs(option: &str, list: &str) -> Result<Vec<IpNet>, BadArguments> {
    let bad = |reason| BadArguments::BadList {
        option: option.to_owned(),
        reason,
    };
    let mut nets = Vec::new();
    for entry in list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        if nets.len() == MAX_NETS {
            return Err(bad(format!("has more than {MAX_NETS} entries")));
        }
        let single = entry.parse::<IpAddr>().map(IpNet::from);
        let net = single.or_else(|_| entry.parse()).map_err(|_| {
            bad(format!(
                "{entry:?} is neither an IP address nor a net such as 10.0.0.0/8"
            ))
        })?;
        nets.push(net);
    }
    Ok(nets)
}
