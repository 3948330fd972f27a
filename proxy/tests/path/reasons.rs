//! Every reason that the page of refusals names, as a client receives it: with the status from the
//! page, and over gRPC with the code.
//!
//! Claims: calls-29

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use policy::name::ServiceId;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::route::{Backend, Forward, Match, Rule, Table};
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Timeouts;
use policy::traffic::endpoint::{Breaker, BreakerState};
use policy::traffic::guard::Overload;
use policy::traffic::pod::GuardPort;
use tokio::net::TcpStream;
use wire::convert::routed_service_message;
use wire::v1::egress::Mode;
use wire::v1::resource::Content;
use wire::v1::{Enforcement, MtlsMode, Protocol, Resource};

use super::answers::{App, NOTHING, OK, SILENCE, ask, limited, policy_of, served_by, whole};
use super::limits::{guard, guarded, limit, rule as rule_of};
use super::mirrors::restrict_to_read_only;
use super::overload::calls_in_flight;
use super::revoked::revoked;
use super::unconfigured::unconfigured;
use crate::support::{
    Authority, Pod, egress, endpoint, endpoints, external, pair, raw, rule, service, split, vip,
};

const GRPC: &str = "content-type: application/grpc\r\n";
const PATIENCE: Duration = Duration::from_secs(10);

/// The caller.
#[derive(Clone, Copy)]
enum Asks {
    /// The application of the client, this address.
    Client(SocketAddr),
    /// A caller outside the mesh, this port of the server.
    Outsider(u16),
}

/// Pods of which one refuses the next request, and what must last until then.
struct Scene {
    client: Pod,
    server: Pod,
    asks: Asks,
    path: &'static str,
    _app: Option<App>,
    _in_flight: Vec<TcpStream>,
}

impl Scene {
    async fn of(reason: Reason) -> Self {
        let (client, mut server, port, _) = pair(Protocol::Http1).await;
        let (mut asks, mut path) = (Asks::Client(vip()), "/");
        let (mut app, mut in_flight) = (None, Vec::new());
        let enforce = |server: &Pod| server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
        match reason {
            Reason::NotAllowed => enforce(&server),
            Reason::NoIdentity => {
                server.mode("api", Enforcement::Open, MtlsMode::Strict);
                asks = Asks::Outsider(port);
            }
            Reason::NoBackend => {
                let splits = vec![split("none", &[("api", 0)])];
                client.set(service("api", vip().ip(), Protocol::Http1, splits));
            }
            Reason::NoEndpoint => client.set(vec![endpoints("api", Vec::new())]),
            Reason::ConnectFailed => client.reaches(&server, 1),
            Reason::ConnectionLost => app = Some(served(&client, &server, NOTHING).await),
            Reason::TlsFailed => {
                let other = endpoint(server.ip, port, Some("other"));
                client.set(vec![endpoints("api", vec![other])]);
            }
            Reason::UnknownDestination => {
                client.mode("web", Enforcement::Open, MtlsMode::Strict);
                asks = Asks::Client(SocketAddr::from(([10, 96, 7, 7], 80)));
            }
            Reason::NoConfiguration => {
                server = unconfigured(&Authority::new(), "api").await;
                let unseen = App::new(server.ip, OK).await;
                asks = Asks::Outsider(unseen.port);
                app = Some(unseen);
            }
            Reason::BadRequest => {
                enforce(&server);
                server.set(vec![rule("t", "web", None, Some(&["/"]))]);
                path = "/a%5cb";
            }
            Reason::Deadline => {
                app = Some(served(&client, &server, SILENCE).await);
                client.set(vec![policy_of(&EffectivePolicy {
                    timeouts: limited(Timeouts {
                        request: Some(Duration::from_millis(200)),
                        ..Timeouts::DEFAULT
                    }),
                    ..EffectivePolicy::default()
                })]);
            }
            Reason::Limit => {
                let one = served(&client, &server, OK).await;
                server.set(vec![guard(one.port, vec![rule_of(limit("all", 1))])]);
                assert_eq!(ask(&client, "GET", "", "").await.0, 200);
                app = Some(one);
            }
            Reason::Overload => {
                let one = served(&client, &server, SILENCE).await;
                let full = GuardPort {
                    overload: whole(Overload {
                        max_concurrency: Some(1),
                        ..Overload::DEFAULT
                    }),
                    ..GuardPort::default()
                };
                server.set(vec![guarded(one.port, full)]);
                in_flight = calls_in_flight(&client, &one, "", 1).await;
                app = Some(one);
            }
            Reason::CircuitOpen => client.set(vec![policy_of(&EffectivePolicy {
                breaker: whole(Breaker {
                    state: BreakerState::Open,
                    ..Breaker::DEFAULT
                }),
                ..EffectivePolicy::default()
            })]),
            Reason::ShadowWrite => restrict_to_read_only(&client, &[]),
            Reason::EgressDenied => {
                let outside = SocketAddr::from(([203, 0, 113, 7], 80));
                client.set(vec![external(outside), egress(Mode::Deny, Vec::new())]);
                asks = Asks::Client(outside);
            }
            Reason::NoRoute | Reason::InvalidRoute => {
                client.set(routed(Forward::Refuse(reason)));
            }
            Reason::Revoked => client.set(revoked("api")),
            Reason::InvalidBackend => {
                let gone = Backend::invalid(ServiceId::new("shop", "gone"), 80, 1);
                client.set(routed(Forward::split(vec![gone])));
            }
        }
        Self {
            client,
            server,
            asks,
            path,
            _app: app,
            _in_flight: in_flight,
        }
    }

    /// All that comes back of a request with these headers.
    async fn answer(&self, headers: &str) -> String {
        let mut stream = match self.asks {
            Asks::Client(addr) => self.client.call(addr).await,
            Asks::Outsider(port) => self.server.plain(port).await,
        };
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\nContent-Length: 2\r\n\
             {headers}\r\n{{}}",
            self.path
        );
        raw(&mut stream, request.as_bytes(), PATIENCE).await
    }
}

/// An application to which all calls of `api` go.
async fn served(client: &Pod, server: &Pod, answer: &'static str) -> App {
    let app = App::new(server.ip, answer).await;
    served_by(client, server, &[&app]);
    app
}

/// `api` with a rule of a route for every request.
fn routed(then: Forward) -> Vec<Resource> {
    let table = Table {
        rules: vec![Rule {
            origin: Origin::new("HTTPRoute", "shop", "web"),
            when: Match::every_request(),
            then,
        }],
        otherwise: Forward::Root,
    };
    let mut all = service("api", vip().ip(), Protocol::Http1, Vec::new());
    for one in &mut all {
        if let Some(Content::Service(service)) = &one.content {
            let routed = routed_service_message(service.clone(), &table);
            one.content = Some(Content::RoutedService(routed));
        }
    }
    all
}

/// The status and the gRPC code of each reason, as the page has them.
fn promised() -> BTreeMap<String, (u16, u16)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("| reason | HTTP | gRPC |").unwrap();
    let rows = table.lines().skip(2);
    let rows = rows.take_while(|row| row.starts_with('|'));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')));
    cells
        .map(|cells| {
            let cells: Vec<&str> = cells.collect();
            // What is only too long has a status of its own, named after the first.
            let status = cells[2].split(',').next().unwrap();
            let codes = (status.parse().unwrap(), cells[3].parse().unwrap());
            (cells[1].to_owned(), codes)
        })
        .collect()
}

#[tokio::test]
async fn every_reason_has_documented_status_and_grpc_code() {
    let promised = promised();
    assert_eq!(promised.len(), Reason::ALL.len(), "{promised:?}");
    for reason in Reason::ALL {
        let (status, code) = promised[reason.as_str()];
        let code = format!("grpc-status: {code}\r\n");
        for (headers, status, part) in [("", status, ""), (GRPC, 200, &*code)] {
            let answer = Scene::of(reason).await.answer(headers).await;
            let first = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&first), "{reason} {headers}: {answer}");
            let reason_header = format!("weft-reason: {reason}\r\n");
            assert!(
                answer.contains(&reason_header),
                "{reason} {headers}: {answer}"
            );
            assert!(answer.contains(part), "{reason} {headers}: {answer}");
        }
    }
}
