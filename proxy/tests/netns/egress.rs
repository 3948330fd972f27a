//! A pod that may call nothing outside the mesh but what two ExternalServices give: calls that
//! name one host and mean another, by everything that a call says, come to no host.
//!
//! pod  10.77.0.2, whose proxy is a process of its own, reached by the real rules
//! peer everything else in the world
//!
//! Claims: egress-1, egress-2

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use policy::well_known::{INBOUND_PORT, OUTBOUND_PORT};
use tokio::runtime::Builder;
use weft_proxy::{Addresses, Budget, MESH_PORT, Process, ServedWorkload, original_dst};
use wire::v1::external_port::Protocol;
use wire::v1::resource::Content;
use wire::v1::{self, Enforcement, MtlsMode};

use super::fleet::Inside;
use super::processes;
use super::spoofs::{
    BEYOND, BYTES, Call, EVIL, EVIL6, Fate, HTTP, NEAR, NETWORK, OTHER, PAY, TLS, UNKNOWN, below,
    foreign, foreign_calls, foreign_hellos, named, spoofed_bytes, spoofed_requests,
};
use super::testbed::{Testbed, Who};
use super::world::{RECEIVED, Said, World, by_http2, say};
use crate::support::{Authority, Pod, external, resource};

/// How long certificates live.
const LIFE: Duration = Duration::from_secs(3600);
/// Open calls end within 2 s.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn spoofed_calls_reach_no_host_and_named_ones_do() {
    let place = Place::new("egress");
    let all = [
        named(),
        spoofed_requests(),
        spoofed_bytes(),
        foreign_calls(),
    ];
    for (call, said) in place.say(all.into_iter().flatten().collect()) {
        call.check(&said, &place.world);
    }
    for host in [EVIL, EVIL6, BEYOND, UNKNOWN] {
        assert_eq!(place.world.connections(host), 0, "{host}");
    }
}

#[test]
fn http2_request_is_judged_by_its_own_authority() {
    let place = Place::new("egress2");
    let url = "http://evil.example/spoof-http2";
    let status = place.inside(move || by_http2((PAY, HTTP).into(), url));
    assert_eq!(status, 403);
    assert!(place.world.hosts_of("spoof-http2").is_empty());
    assert_eq!(place.world.connections(PAY), 0);
}

// Claims: egress-3
#[test]
fn open_calls_end_when_their_object_goes() {
    let mut place = Place::new("egress3");
    let mut held = place.inside(|| async { TcpStream::connect((NEAR, BYTES)).unwrap() });
    held.set_read_timeout(Some(ENDED_WITHIN)).unwrap();
    held.write_all(b"held\n").unwrap();
    let mut received = [0; RECEIVED.len()];
    held.read_exact(&mut received).unwrap();
    assert_eq!(received, RECEIVED.as_bytes());

    place.proxy.order("withdraw");
    match held.read(&mut received) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("it stayed open: {other:?}"),
    }
    let again = [
        Call::get("late-request", (NEAR, HTTP), "any.example", Fate::Refused),
        Call::new("late-bytes", (NEAR, BYTES), "late-bytes\n", Fate::Reset),
    ];
    for (call, said) in place.say(Vec::from(again)) {
        call.check(&said, &place.world);
    }
}

/// The pod, its proxy, and the hosts. The process goes before its namespace.
struct Place {
    proxy: processes::Process,
    world: World,
    testbed: Testbed,
}

impl Place {
    fn new(name: &str) -> Self {
        let testbed = Testbed::unoccupied(name);
        for ip in [NEAR, BEYOND] {
            testbed.peer().ip(&format!("addr add {ip}/32 dev lo"));
        }
        testbed.pod().capture(&[]).unwrap();
        let world = World::new(testbed.peer(), hosts());
        let user = Who::Ids(15190, 15190);
        let mut proxy = processes::Process::play(testbed.pod(), user, "egress", "");
        assert_eq!(proxy.line(), "\"ready\"");
        Self {
            proxy,
            world,
            testbed,
        }
    }

    /// Does this where the pod's application is.
    fn inside<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (done, _ended) = Inside::begin(self.testbed.pod(), work);
        done
    }

    /// Makes all calls at the same time, as the pod's application.
    fn say(&self, calls: Vec<Call>) -> Vec<(Call, Said)> {
        self.inside(move || async move {
            let all = calls.into_iter().map(|call| async move {
                let said = say(call.to, &call.parts, call.pause).await;
                (call, said)
            });
            futures::future::join_all(all).await
        })
    }
}

/// Where hosts listen.
fn hosts() -> Vec<SocketAddr> {
    let hosts = [PAY, EVIL, EVIL6, NEAR, BEYOND];
    let ports = |host| [HTTP, TLS, BYTES, OTHER].map(|port| SocketAddr::new(host, port));
    hosts.into_iter().flat_map(ports).collect()
}

/// Role: the pod's proxy, which serves as the program does. Prints when it starts, and does what
/// lines of its input say.
pub(crate) fn serve(print: impl Fn(String) + Send + 'static) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let budget = Budget::new(64 << 20);
        let authority = Authority::new();
        let certs = authority.leaf("web", LIFE, SystemTime::now());
        let ip = IpAddr::from([10, 77, 0, 2]);
        let pod = Pod::unserved_at(ip, &budget, authority.roots(), certs, "web");
        pod.mode("web", Enforcement::Open, MtlsMode::Permissive);
        pod.set(resources());
        let served = ServedWorkload::new(Arc::clone(&pod.proxy), redirected());
        let _process = Process::start(vec![served], budget).unwrap();
        print("ready".to_owned());
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                assert_eq!(line.unwrap(), "withdraw");
                pod.set(vec![egress(Vec::new())]);
                print("done".to_owned());
            }
        });
        std::future::pending::<()>().await;
    });
}

/// The listeners that the rules lead to.
fn redirected() -> Addresses {
    let at = |ip: IpAddr, port: u16| SocketAddr::from((ip, port));
    Addresses {
        outbound: vec![
            at(Ipv4Addr::LOCALHOST.into(), OUTBOUND_PORT),
            at(Ipv6Addr::LOCALHOST.into(), OUTBOUND_PORT),
        ],
        inbound: vec![at(Ipv4Addr::UNSPECIFIED.into(), INBOUND_PORT)],
        mesh: vec![at(Ipv4Addr::UNSPECIFIED.into(), MESH_PORT)],
        original: |stream| original_dst(stream),
    }
}

/// All that a controller would send.
fn resources() -> Vec<v1::Resource> {
    let by_name = |name: &str, ports: &[u16]| -> Vec<v1::Resource> {
        let ports = ports.iter();
        ports.map(|port| addresses(name, *port, &[PAY])).collect()
    };
    let mut all: Vec<_> = hosts().into_iter().map(external).collect();
    all.extend(by_name("pay.example", &[HTTP, TLS]));
    all.extend(by_name("a.b.api.example", &[HTTP]));
    for name in [
        "named-sni",
        "named-slow",
        "named-parts",
        "named-turned",
        "spoof-long",
    ] {
        all.extend(by_name(&below(name), &[TLS]));
    }
    for (client, _) in foreign_hellos() {
        all.extend(by_name(&foreign(client), &[TLS]));
    }
    all.extend([HTTP, TLS].map(|port| addresses("turned.example", port, &[])));
    let pay = v1::ExternalObject {
        hosts: ["pay.example", "turned.example", "*.api.example"]
            .map(String::from)
            .to_vec(),
        resolved: vec![PAY.to_string()],
        ..object("pay")
    };
    let near = v1::ExternalObject {
        addresses: vec![NETWORK.to_owned()],
        ..object("near")
    };
    all.push(egress(vec![pay, near]));
    all
}

fn object(name: &str) -> v1::ExternalObject {
    let port = |(port, protocol): (u16, Protocol)| v1::ExternalPort {
        port: port.into(),
        protocol: protocol as i32,
        target_port: port.into(),
        tls: None,
    };
    let ports = [
        (HTTP, Protocol::Http),
        (TLS, Protocol::Tls),
        (BYTES, Protocol::Tcp),
    ];
    v1::ExternalObject {
        origin: Some(v1::ObjectRef {
            kind: "ExternalService".into(),
            namespace: "shop".into(),
            name: name.into(),
        }),
        ports: ports.map(port).to_vec(),
        ..v1::ExternalObject::default()
    }
}

/// Calls that none of the objects gives are refused.
fn egress(objects: Vec<v1::ExternalObject>) -> v1::Resource {
    let mode = v1::egress::Mode::Deny as i32;
    let content = Content::Egress(v1::Egress { mode, objects });
    resource(wire::names::EGRESS, content)
}

/// What a host outside resolves to, at a port.
fn addresses(host: &str, port: u16, ips: &[IpAddr]) -> v1::Resource {
    let endpoint = |ip: &IpAddr| v1::Endpoint {
        ip: ip.to_string(),
        port: port.into(),
        ..v1::Endpoint::default()
    };
    let content = Content::Endpoints(v1::Endpoints {
        endpoints: ips.iter().map(endpoint).collect(),
        ..v1::Endpoints::default()
    });
    resource(&wire::names::external(host, port), content)
}
