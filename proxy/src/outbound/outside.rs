//! A connection to an address outside the mesh: what is known of it, by which ExternalService its
//! calls were admitted, and whether it may stay open.
//!
//! What a connection was let through by is kept, so that it ends when that is given no more: a
//! connection that went to the dialled address is not kept by a name that its caller wrote.
//!
//! Imports the configuration, and nothing of how calls are sent.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::egress::{Decision, EgressMode, ExternalCall, ExternalProtocol, Unnamed};
use policy::mode::MtlsMode;
use policy::reason::Reason;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::net::sniff::DETECT_WITHIN;
use crate::outbound::shadow;

/// Where a name decides, a client speaks first, and an idle connection stays for this long.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Names by which requests of one connection were let through. One with more is closed behind its
/// requests in flight, and its client opens another.
const MOST_NAMES: usize = 64;

/// A connection to an address outside the mesh, or to one that no controller has explained.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// No controller has explained the address.
    is_unknown: bool,
    /// Of the application's own TLS, as it is compared.
    pub(super) server_name: Option<Box<str>>,
    /// What calls on it were let through by, and the Gateway by which they left, if by one.
    passed: Mutex<BTreeSet<(Passed, Option<Arc<str>>)>>,
}

/// By what a call was let through, and so where it went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Passed {
    /// To the address that was dialled.
    Address,
    /// To that address, as one that these hosts had then. DNS may give it to none of them by now.
    Resolved(Box<[Arc<str>]>),
    /// To an address of this host.
    Name(Box<str>),
}

/// What is done with a connection before any of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstLook {
    /// It passes as it comes. `audited`: deny would refuse it.
    Passes { audited: bool },
    /// Its calls are decided one by one.
    Read(Plan),
}

/// What is read of a connection, and for how long that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// How long it may be silent; `None`: it goes to the address that was dialled, whatever it is.
    pub(super) patience: Option<Duration>,
    /// HTTP is read as requests.
    pub(super) requests: bool,
    /// The server name of TLS is read.
    pub(super) hello: bool,
}

/// What is done with a connection to this address.
pub(super) fn first_look(snapshot: &Snapshot, addr: SocketAddr) -> FirstLook {
    let egress = &snapshot.egress;
    if egress.is_idle() {
        return FirstLook::Passes { audited: false };
    }
    let reads = egress.reads(addr.port());
    FirstLook::Read(match egress.decide(&call(addr, None, false)) {
        Decision::Object(admitted) => match admitted.port.protocol {
            ExternalProtocol::Http => Plan {
                patience: Some(PATIENCE),
                requests: true,
                hello: false,
            },
            ExternalProtocol::Tls | ExternalProtocol::Tcp => Plan {
                patience: None,
                requests: false,
                hello: false,
            },
        },
        // All is read: it may be refused, and how depends on what it is.
        Decision::Denied => Plan {
            patience: Some(if reads.host || reads.sni {
                PATIENCE
            } else {
                DETECT_WITHIN
            }),
            requests: true,
            hello: true,
        },
        Decision::NoObject(unnamed) if !reads.host && !reads.sni => {
            let audited = unnamed == Unnamed::Audit;
            return FirstLook::Passes { audited };
        }
        Decision::NoObject(_) => Plan {
            // Where TLS alone is read, another protocol's server may be the one that speaks first.
            patience: Some(if reads.host { PATIENCE } else { DETECT_WITHIN }),
            requests: reads.host,
            hello: reads.sni,
        },
    })
}

/// Whether bytes that are not read may go to this address.
pub(super) fn may_pass_unread(snapshot: &Snapshot, addr: SocketAddr) -> Result<(), Failure> {
    shadow::may_pass(snapshot)?;
    match snapshot.egress.decide(&call(addr, None, false)) {
        Decision::Object(admitted) if admitted.object.gateway.is_some() => Err(moved()),
        Decision::Object(_) | Decision::NoObject(_) => Ok(()),
        Decision::Denied => Err(denied(addr, None)),
    }
}

/// Whether plaintext may go to an unknown address.
pub(super) fn may_pass_unknown(snapshot: &Snapshot) -> Result<(), Failure> {
    shadow::may_pass(snapshot)?;
    if snapshot.mtls() == MtlsMode::Permissive {
        return Ok(());
    }
    let detail = "plaintext is not sent to unknown addresses any more";
    Err(Failure::refused(Reason::UnknownDestination, detail))
}

/// A call that no object gives. `name`: the host or server name that it has.
pub(super) fn denied(addr: SocketAddr, name: Option<&str>) -> Failure {
    let port = addr.port();
    let address = addr.ip().to_canonical().to_string();
    let called = name.unwrap_or(&address);
    Failure::refused(
        Reason::EgressDenied,
        format!(
            "no ExternalService that admits this pod's account gives calls of {called} at port \
             {port}, and weft.dev/egress of this pod is deny; name it in spec.hosts or \
             spec.addresses of one, with the port: `weft suggest --egress` writes it"
        ),
    )
}

/// What a connection was opened by leads another way by now.
fn moved() -> Failure {
    let detail = "spec.gateway of the ExternalService that gives these calls is another one by now; \
                  connect again";
    Failure::refused(Reason::EgressDenied, detail)
}

/// `name`: of the application's own TLS where that is what the connection carries, else of a
/// request.
fn call(addr: SocketAddr, name: Option<&str>, is_tls: bool) -> ExternalCall<'_> {
    ExternalCall {
        addr: addr.ip().to_canonical(),
        port: addr.port(),
        host: name.filter(|_| !is_tls),
        sni: name.filter(|_| is_tls),
    }
}

impl Outside {
    /// To an address that no controller has explained.
    pub(super) fn unknown() -> Self {
        Self {
            is_unknown: true,
            ..Self::default()
        }
    }

    /// A call on it. `host`: of its request, as it is compared; `None` for bytes.
    pub(super) fn call<'a>(&'a self, addr: SocketAddr, host: Option<&'a str>) -> ExternalCall<'a> {
        match &self.server_name {
            Some(name) => call(addr, Some(&**name), true),
            None => call(addr, host, false),
        }
    }

    /// A call goes this way, by this Gateway if by one. True where the connection had calls by too
    /// many names.
    pub(super) fn passes(&self, passed: Passed, gateway: Option<Arc<str>>) -> bool {
        let mut all = self.passed.lock();
        all.insert((passed, gateway));
        all.len() > MOST_NAMES
    }

    /// Whether all that went by it may still go.
    pub(super) fn may_go_on(&self, snapshot: &Snapshot, addr: SocketAddr) -> Result<(), Failure> {
        let (egress, port) = (&snapshot.egress, addr.port());
        let by_address = || egress.decide(&call(addr, None, false)) != Decision::Denied;
        let spoken = match self.server_name {
            Some(_) => ExternalProtocol::Tls,
            None => ExternalProtocol::Http,
        };
        for (passed, gateway) in &*self.passed.lock() {
            let (name, is_given) = match passed {
                Passed::Address => (None, by_address()),
                Passed::Resolved(hosts) => (None, by_address() || egress.gives_hosts(port, hosts)),
                // An object for the dialled address gives no calls of the host.
                Passed::Name(name) => {
                    let is_given =
                        egress.mode != EgressMode::Deny || egress.gives_name(port, spoken, name);
                    (Some(&**name), is_given)
                }
            };
            let goes_there = name.is_none() && gateway.is_none();
            self.may_dial(snapshot, addr, goes_there)?;
            if !is_given {
                return Err(denied(addr, name));
            }
            let call = call(addr, name, self.server_name.is_some());
            if let Decision::Object(now) = egress.decide(&call)
                && now.object.gateway != *gateway
            {
                return Err(moved());
            }
        }
        Ok(())
    }

    /// Whether plaintext may go to the address that was dialled, if it goes there.
    pub(super) fn may_dial(
        &self,
        snapshot: &Snapshot,
        addr: SocketAddr,
        goes_there: bool,
    ) -> Result<(), Failure> {
        if goes_there && self.is_unknown && !snapshot.destinations.contains_key(&addr) {
            return may_pass_unknown(snapshot);
        }
        shadow::may_pass(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use policy::egress::{Egress, ExternalObject, ExternalPort, HostPattern};
    use policy::origin::Origin;

    use super::*;

    const HOST: &str = "api.pay.example";

    fn dialled() -> SocketAddr {
        ([203, 0, 113, 7], 443).into()
    }

    fn object(hosts: &[&str], addresses: &[&str], protocol: ExternalProtocol) -> ExternalObject {
        let hosts = hosts
            .iter()
            .map(|host| host.parse::<HostPattern>().unwrap());
        let addresses = addresses.iter().map(|net| net.parse().unwrap());
        ExternalObject {
            origin: Origin::new("ExternalService", "shop", "pay"),
            hosts: hosts.collect(),
            addresses: addresses.collect(),
            resolved: Vec::new(),
            gateway: None,
            callers: Vec::new(),
            ports: vec![ExternalPort {
                port: 443,
                protocol,
                target_port: 443,
                tls: None,
            }],
        }
    }

    fn snapshot(mode: EgressMode, objects: Vec<ExternalObject>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.egress = Arc::new(Egress { mode, objects });
        snapshot
    }

    #[test]
    fn connections_are_read_only_where_bytes_may_decide() {
        use EgressMode::{Allow, Audit, Deny};
        use ExternalProtocol::{Http, Tcp, Tls};
        let look = |mode, objects| first_look(&snapshot(mode, objects), dialled());
        let passes = |audited| FirstLook::Passes { audited };
        assert_eq!(look(Allow, Vec::new()), passes(false));
        assert_eq!(look(Audit, Vec::new()), passes(true));
        let plan = |mode, objects| match look(mode, objects) {
            FirstLook::Read(plan) => (plan.patience, plan.requests, plan.hello),
            FirstLook::Passes { .. } => panic!("it is not read"),
        };
        let none = plan(Deny, Vec::new());
        assert_eq!(none, (Some(DETECT_WITHIN), true, true));
        let by_name = |protocol| vec![object(&[HOST], &[], protocol)];
        assert_eq!(plan(Deny, by_name(Tls)), (Some(PATIENCE), true, true));
        assert_eq!(
            plan(Allow, by_name(Tls)),
            (Some(DETECT_WITHIN), false, true)
        );
        assert_eq!(plan(Allow, by_name(Http)), (Some(PATIENCE), true, false));
        let by_address = |protocol| vec![object(&[], &["203.0.113.0/24"], protocol)];
        for mode in [Allow, Audit, Deny] {
            assert_eq!(plan(mode, by_address(Tcp)), (None, false, false));
            assert_eq!(plan(mode, by_address(Tls)), (None, false, false));
            assert_eq!(plan(mode, by_address(Http)), (Some(PATIENCE), true, false));
        }
    }

    /// Else a name that any caller can write would keep the way to any address open.
    #[test]
    fn name_does_not_keep_way_to_dialled_address() {
        let by_name = || vec![object(&[HOST], &[], ExternalProtocol::Tls)];
        let by_address = object(&[], &["203.0.113.0/24"], ExternalProtocol::Tls);
        let both = vec![by_name().remove(0), by_address.clone()];
        let outside = |passed| {
            let outside = Outside {
                server_name: Some(HOST.into()),
                ..Outside::default()
            };
            outside.passes(passed, None);
            outside
        };
        let goes_on = |passed, mode, objects| {
            let snapshot = snapshot(mode, objects);
            outside(passed).may_go_on(&snapshot, dialled()).is_ok()
        };
        let (address, name) = (Passed::Address, Passed::Name(HOST.into()));
        assert!(goes_on(address.clone(), EgressMode::Deny, both));
        assert!(!goes_on(address.clone(), EgressMode::Deny, by_name()));
        assert!(goes_on(address, EgressMode::Audit, by_name()));
        assert!(goes_on(name.clone(), EgressMode::Deny, by_name()));
        assert!(!goes_on(name.clone(), EgressMode::Deny, Vec::new()));
        // Nor the other way round.
        assert!(!goes_on(name.clone(), EgressMode::Deny, vec![by_address]));
        assert!(goes_on(name, EgressMode::Audit, Vec::new()));
    }

    /// Answers of DNS rotate, and no rule has changed by that.
    #[test]
    fn connection_outlives_address_of_its_hosts_and_no_host() {
        let object = |hosts: &[&str], resolved: &[[u8; 4]]| ExternalObject {
            resolved: resolved.iter().map(|ip| (*ip).into()).collect(),
            ..object(hosts, &[], ExternalProtocol::Tcp)
        };
        let outside = Outside::default();
        outside.passes(Passed::Resolved([HOST.into()].into()), None);
        for (objects, stays) in [
            (vec![object(&[HOST], &[[203, 0, 113, 7]])], true),
            (vec![object(&[HOST], &[[203, 0, 113, 8]])], true),
            (vec![object(&["b.pay.example", HOST], &[])], true),
            (vec![object(&["b.pay.example"], &[])], false),
            (vec![object(&["*.pay.example"], &[])], false),
            (Vec::new(), false),
        ] {
            let snapshot = snapshot(EgressMode::Deny, objects);
            let may_go_on = outside.may_go_on(&snapshot, dialled());
            assert_eq!(may_go_on.is_ok(), stays, "{:?}", snapshot.egress);
        }
    }

    /// Else a connection from before would go on directly, past the Gateway.
    #[test]
    fn connection_ends_where_its_way_becomes_another() {
        let by = |gateway: Option<&str>| ExternalObject {
            gateway: gateway.map(Arc::from),
            ..object(&[HOST], &["203.0.113.0/24"], ExternalProtocol::Tls)
        };
        let (none, out, other) = (None, Some("edge/out"), Some("edge/other"));
        for mode in [EgressMode::Allow, EgressMode::Deny] {
            for (went, now) in [
                (none, out),
                (out, none),
                (out, other),
                (out, out),
                (none, none),
            ] {
                let outside = Outside::default();
                outside.passes(Passed::Address, went.map(Arc::from));
                let snapshot = snapshot(mode, vec![by(now)]);
                let goes_on = outside.may_go_on(&snapshot, dialled()).is_ok();
                assert_eq!(goes_on, went == now, "{mode} {went:?} {now:?}");
                let unread = may_pass_unread(&snapshot, dialled());
                assert_eq!(unread.is_ok(), now.is_none(), "{now:?}");
            }
        }
    }

    #[test]
    fn mapped_address_is_the_address() {
        let mapped = SocketAddr::new("::ffff:203.0.113.7".parse().unwrap(), 443);
        let objects = || vec![object(&[], &["203.0.113.0/24"], ExternalProtocol::Tcp)];
        let given = snapshot(EgressMode::Deny, objects());
        assert!(may_pass_unread(&given, mapped).is_ok());
        let other = SocketAddr::new("::ffff:203.0.114.7".parse().unwrap(), 443);
        assert_eq!(
            may_pass_unread(&given, other).unwrap_err().reason(),
            Reason::EgressDenied
        );
    }
}
