//! TrafficSplits that are written as routes, and what no route can say.

use super::*;
use crate::output::Format;

const SPLIT: &str = "\
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata: {name: cart, namespace: shop}
spec:
  service: cart
  backends:
  - {service: cart-v1, weight: 90}
  - {service: cart-v2, weight: 10}
";

fn services() -> String {
    let services = ["cart", "cart-v1", "cart-v2"].map(|name| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{{name: http, port: 80}}]}}\n"
        )
    });
    services.concat()
}

/// Exit status, output and messages for what is read from the standard input.
async fn converted(text: &str, format: &str) -> (u8, String, String) {
    let line = ["weft", "convert", "-o", format, "-f", "-"];
    let cli = Cli::try_parse_from(line).unwrap();
    let Command::Convert(command) = cli.command else {
        panic!("another command");
    };
    let mut streams = Streams::of(text);
    let mut console = streams.console();
    let ended = command.run(&cli.global, &mut console).await;
    if let Some(text) = ended.as_ref().err().and_then(Failure::words) {
        console.word(text).unwrap();
    }
    let code = status(&ended);
    let (out, err) = streams.texts();
    (code, out, err)
}

#[tokio::test]
async fn split_of_any_version_becomes_a_route() {
    let (code, out, err) = converted(&format!("{SPLIT}{}", services()), "json").await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    let list: Value = serde_json::from_str(&out).unwrap();
    let [route] = list["items"].as_array().unwrap().as_slice() else {
        panic!("{out}");
    };
    assert_eq!(route["kind"], "HTTPRoute");
    assert_eq!(route["apiVersion"], "gateway.networking.k8s.io/v1");
    assert_eq!(route["metadata"]["namespace"], "shop");
    let refs = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
    let weights: Vec<&Value> = refs.iter().map(|one| &one["weight"]).collect();
    assert_eq!(weights, [90, 10], "{out}");

    let (_, yaml, _) = converted(&format!("{SPLIT}{}", services()), "table").await;
    assert!(yaml.starts_with("---\n"), "{yaml}");
    let route: Value = serde_yaml_ng::from_str(&yaml).unwrap();
    assert_eq!(route["kind"], "HTTPRoute");
}

#[tokio::test]
async fn what_no_route_can_say_names_its_split() {
    let (code, _, err) = converted(SPLIT, "yaml").await;
    assert_eq!(code, 1, "{err}");
    assert!(err.starts_with("shop/cart: "), "{err}");
    let late = SPLIT.replace("v1alpha2", "v9");
    let (code, _, err) = converted(&late, "yaml").await;
    assert_eq!(code, 1, "{err}");
    assert!(err.starts_with("shop/cart: apiVersion: "), "{err}");
    // Control: objects of other kinds are none of its business.
    let (code, out, err) = converted(&services(), "table").await;
    assert_eq!((code, &*out), (0, ""), "{err}");
    assert!(err.contains("no TrafficSplit"), "{err}");
    let (code, _, err) = converted("a: [", "table").await;
    assert_eq!(code, 2, "{err}");
}

/// A cluster with the split and its Services, each with this port.
fn cluster(port: &Value) -> FakeApi {
    let api = FakeApi::default();
    let at =
        |root: &str, plural: &str, name: &str| format!("/{root}/namespaces/shop/{plural}/{name}");
    let split: Value = serde_yaml_ng::from_str(&SPLIT.replace("v1alpha2", "v1alpha4")).unwrap();
    let path = at("apis/split.smi-spec.io/v1alpha4", "trafficsplits", "cart");
    api.put(&path, split);
    for name in ["cart", "cart-v1", "cart-v2"] {
        let metadata = json!({"name": name, "namespace": "shop"});
        let service = json!({"metadata": metadata, "spec": {"ports": [port]}});
        api.put(&at("api/v1", "services", name), service);
    }
    api
}

/// The outcome, the routes and the messages.
async fn of_cluster(client: Client, place: &str) -> (Conclusion, Vec<Value>, String) {
    let cli = Cli::try_parse_from(["weft", "convert", "--from-cluster", place]).unwrap();
    let Command::Convert(command) = cli.command else {
        panic!("another command");
    };
    let cluster = Cluster::of(client, &cli.global);
    let mut streams = Streams::default();
    let mut console = streams.console();
    let ended = command.of_cluster(&cluster, Format::Json, &mut console);
    let ended = ended.await.unwrap();
    let (out, err) = streams.texts();
    let list: Value = serde_json::from_str(&out).unwrap();
    (ended, list["items"].as_array().unwrap().clone(), err)
}

#[tokio::test]
async fn splits_of_the_cluster_are_converted_with_their_services() {
    let api = cluster(&json!({"name": "http", "port": 80}));
    api.put(
        "/api/v1/namespaces/bank",
        json!({"metadata": {"name": "bank"}}),
    );
    for (place, items) in [("-A", 1), ("--namespace=bank", 0)] {
        let (ended, found, err) = of_cluster(api.client(), place).await;
        assert_eq!(ended, Conclusion::Yes, "{err}");
        assert_eq!(found.len(), items, "{place}: {found:?}");
    }
}

#[tokio::test]
async fn namespace_that_is_not_there_is_bad_input() {
    let place = ["weft", "convert", "--from-cluster", "--namespace=bnk"];
    let cli = Cli::try_parse_from(place).unwrap();
    let Command::Convert(command) = cli.command else {
        panic!("another command");
    };
    let api = FakeApi::default();
    api.put(
        "/api/v1/namespaces/bank",
        json!({"metadata": {"name": "bank"}}),
    );
    let cluster = Cluster::of(api.client(), &cli.global);
    let mut streams = Streams::default();
    let mut console = streams.console();
    let ended = command.of_cluster(&cluster, Format::Json, &mut console);
    let Err(Failure::Usage(words)) = ended.await else {
        panic!("nothing was converted, and all is said to be well");
    };
    assert!(words.contains("there is no namespace bnk"), "{words}");
}

#[tokio::test]
async fn route_of_the_same_name_is_never_replaced() {
    let api = cluster(&json!({"name": "http", "port": 80}));
    let (_, routes, _) = of_cluster(api.client(), "-A").await;
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart";
    let mut of_gateway = routes[0].clone();
    of_gateway["spec"]["parentRefs"] = json!([{"name": "door"}]);
    api.put(path, of_gateway);
    let (ended, left, err) = of_cluster(api.client(), "-A").await;
    assert_eq!((ended, left.len()), (Conclusion::No, 0), "{err}");
    assert!(err.starts_with("shop/cart: metadata.name: "), "{err}");
    // Control: what has been applied is written once more.
    api.put(path, routes[0].clone());
    let (ended, again, err) = of_cluster(api.client(), "-A").await;
    assert_eq!((ended, again), (Conclusion::Yes, routes), "{err}");
}

/// The cluster, whose API server answers with this status where paths end so.
fn answering(api: &FakeApi, status: StatusCode, end: &'static str) -> Client {
    let well = api.client();
    let service = tower::service_fn(move |request: Request<Body>| {
        let well = well.clone();
        async move {
            if !request.uri().path().ends_with(end) {
                return Ok::<_, Infallible>(well.send(request).await.unwrap());
            }
            let refused = json!({"kind": "Status", "status": "Failure",
                "code": status.as_u16(), "message": "no"});
            let mut response = Response::new(Body::from(refused.to_string().into_bytes()));
            *response.status_mut() = status;
            Ok(response)
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn route_has_the_version_that_the_cluster_serves() {
    let api = cluster(&json!({"name": "sql", "port": 3306}));
    let client = answering(&api, StatusCode::NOT_FOUND, "/v1/tcproutes");
    let (ended, routes, err) = of_cluster(client, "-A").await;
    assert_eq!(ended, Conclusion::Yes, "{err}");
    assert_eq!(routes[0]["kind"], "TCPRoute");
    assert_eq!(
        routes[0]["apiVersion"],
        "gateway.networking.k8s.io/v1alpha2"
    );
}

#[tokio::test]
async fn routes_out_of_sight_are_a_reason_to_look() {
    let api = cluster(&json!({"name": "http", "port": 80}));
    let client = answering(&api, StatusCode::FORBIDDEN, "/httproutes");
    let (ended, routes, err) = of_cluster(client, "-A").await;
    assert_eq!((ended, routes.len()), (Conclusion::No, 1), "{err}");
    assert!(err.contains("before you apply"), "{err}");
}
