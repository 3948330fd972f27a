//! Brings the pod's TCP traffic to the proxy: redirects it in the kernel and
//! proves that it works before the application starts.
//!
//! Runs once, in the pod's network namespace, as the init container
//! `weft-capture` with uid 0 and NET_ADMIN. The rules live in the kernel from
//! then on, so the proxy itself needs no privilege. They can be written again
//! at any time: the whole table is replaced in one transaction.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use ipnet::IpNet;
use policy::protocol::PortRange;

pub mod check;
pub mod nftables;
pub mod rules;

/// The proxy's listener for connections that the application makes.
pub const OUTBOUND: u16 = 15101;
/// The proxy's listener for connections to the application from outside the mesh.
pub const INBOUND: u16 = 15106;
/// The proxy's listener for its peers.
pub const MESH: u16 = 15108;
/// Metrics, readiness, rewritten probes.
pub const ADMIN: u16 = 15190;
/// Ports that the proxy itself listens on; never redirected, never delivered to.
pub const OWN_PORTS: [u16; 4] = [OUTBOUND, INBOUND, MESH, ADMIN];

/// The proxy's user; its connections are not redirected.
pub const UID: u32 = 15190;
/// The proxy's group, exempt like the user.
pub const GID: u32 = 15190;

/// Most nets in a skip list. Every entry is a rule that each new connection
/// walks, and full lists must fit into one netlink message of 200 KiB.
pub const MAX_NETS: usize = 128;

/// What is written, and whether it is written and proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub skip_inbound_ports: Vec<PortRange>,
    pub skip_outbound_ports: Vec<PortRange>,
    pub skip_outbound_cidrs: Vec<IpNet>,
    pub then: Then,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// Write the rules and trust the kernel's word.
    #[default]
    Write,
    /// Write the rules, then prove that they work.
    WriteAndCheck,
    /// Prove rules that somebody else wrote.
    CheckOnly,
}

const USAGE: &str = "usage: weft-proxy capture [--check | --check-only] \
    [--skip-inbound-ports 25,3000-3010] [--skip-outbound-ports LIST] \
    [--skip-outbound-cidrs 10.0.0.0/8,fd00::/8]";

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadArguments {
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
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Self, BadArguments> {
        let mut settings = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--check" => settings.then = Then::WriteAndCheck,
                "--check-only" => settings.then = Then::CheckOnly,
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

    fn skips_port(&self, port: u16) -> bool {
        self.skip_outbound_ports
            .iter()
            .any(|range| range.contains(port))
    }

    fn skips_address(&self, address: IpAddr) -> bool {
        self.skip_outbound_cidrs
            .iter()
            .any(|net| net.contains(&address))
    }
}

fn ports(option: &str, list: &str) -> Result<Vec<PortRange>, BadArguments> {
    PortRange::parse_list(list).map_err(|bad| BadArguments::BadList {
        option: option.to_owned(),
        reason: bad.to_string(),
    })
}

fn cidrs(option: &str, list: &str) -> Result<Vec<IpNet>, BadArguments> {
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

/// Why the pod's traffic is not, or not provably, brought to the proxy.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(transparent)]
    Arguments(#[from] BadArguments),
    #[error("traffic redirection could not be written: {0}")]
    Write(#[from] nftables::WriteError),
    #[error("traffic redirection does not work: {0}")]
    Check(#[from] check::CheckError),
}

/// The subcommand `capture`: does what the arguments say.
///
/// # Errors
/// See [`CaptureError`]; with `--check`, rules may have been written.
pub fn run(
    arguments: impl IntoIterator<Item = String>,
) -> Result<Vec<check::Outcome>, CaptureError> {
    let settings = Settings::from_arguments(arguments)?;
    if settings.then != Then::CheckOnly {
        nftables::replace(&rules::plan(&settings))?;
    }
    match settings.then {
        Then::Write => Ok(Vec::new()),
        Then::WriteAndCheck | Then::CheckOnly => {
            Ok(check::check(&settings, check::known_service())?)
        }
    }
}

/// [`run`] for `main`: says on stderr what happened. Exit code 2 means that the
/// arguments are wrong, 1 that something failed.
pub fn command(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let (code, lines) = match run(arguments) {
        Ok(outcomes) => {
            let mut lines = vec!["traffic is redirected".to_owned()];
            lines.extend(outcomes.iter().map(ToString::to_string));
            (ExitCode::SUCCESS, lines)
        }
        Err(CaptureError::Arguments(bad)) => (ExitCode::from(2), vec![bad.to_string()]),
        Err(error) => (ExitCode::FAILURE, vec![error.to_string()]),
    };
    for line in lines {
        // Nobody is left to tell when stderr is closed; the exit code remains.
        let _ = writeln!(stderr, "weft-capture: {line}");
    }
    code
}

#[cfg(test)]
mod tests;
