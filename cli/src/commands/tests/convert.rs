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
async fn what_no_route_can_say_is_named_with_its_split() {
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

#[tokio::test]
async fn splits_of_the_cluster_are_converted_with_their_services() {
    let api = FakeApi::default();
    let at =
        |root: &str, plural: &str, name: &str| format!("/{root}/namespaces/shop/{plural}/{name}");
    let split: Value = serde_yaml_ng::from_str(&SPLIT.replace("v1alpha2", "v1alpha4")).unwrap();
    let path = at("apis/split.smi-spec.io/v1alpha4", "trafficsplits", "cart");
    api.put(&path, split);
    for name in ["cart", "cart-v1", "cart-v2"] {
        let spec = json!({"ports": [{"name": "http", "port": 80}]});
        let metadata = json!({"name": name, "namespace": "shop"});
        let service = json!({"metadata": metadata, "spec": spec});
        api.put(&at("api/v1", "services", name), service);
    }
    for (place, items) in [("-A", 1), ("--namespace=bank", 0)] {
        let cli = Cli::try_parse_from(["weft", "convert", "--from-cluster", place]).unwrap();
        let Command::Convert(command) = cli.command else {
            panic!("another command");
        };
        let cluster = Cluster::of(api.client(), &cli.global);
        let mut streams = Streams::default();
        let mut console = streams.console();
        let ended = command
            .of_cluster(&cluster, Format::Json, &mut console)
            .await;
        assert_eq!(ended.unwrap(), Conclusion::Yes);
        let (out, _) = streams.texts();
        let list: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            list["items"].as_array().unwrap().len(),
            items,
            "{place}: {out}"
        );
    }
}
