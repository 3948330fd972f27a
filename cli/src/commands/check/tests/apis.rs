//! Aggregated APIs that are there, and those that should be.

use std::path::Path;

use super::*;

#[tokio::test]
async fn missing_api_service_is_found_if_controller_enables_it() {
    let [_, metrics, observe] = API_SERVICES;
    let cases: [&[&str]; 3] = [&[metrics], &[observe], &API_SERVICES];
    for gone in cases {
        let api = healthy();
        for name in gone {
            api.remove(&format!("{API}/{name}"));
        }
        let (ended, report, table) = checked(&api, WELL, &[]).await;
        assert_eq!(ended.unwrap(), Conclusion::No, "{gone:?}: {report:#}");
        assert_eq!(with(&report, &["error"]), ["api-services"], "{report:#}");
        let missing = format!("missing: {}", gone.join(", "));
        assert!(table.contains(&missing), "{missing}: {table}");
        assert!(table.contains("helm upgrade restores"), "{table}");
    }
}

#[tokio::test]
async fn api_that_is_switched_off_is_not_missed() {
    let [first, second, observe] = API_SERVICES;
    let cases: [(Value, &[&str]); 3] = [
        (controller(false, true), &[first, second]),
        (controller(true, false), &[observe]),
        (controller(false, false), &API_SERVICES),
    ];
    for (controller, gone) in cases {
        let api = healthy();
        api.put(&format!("{WEFT}/weft-controller"), controller);
        for name in gone {
            api.remove(&format!("{API}/{name}"));
        }
        let (ended, report, _) = checked(&api, WELL, &[]).await;
        assert_eq!(ended.unwrap(), Conclusion::Yes, "{gone:?}: {report:#}");
        assert_eq!(with(&report, &["warning", "error"]), [] as [String; 0]);
    }
}

// Claims: attack-95
#[tokio::test]
async fn leftovers_of_removed_mesh_name_their_delete_command() {
    let gone = || {
        let api = healthy();
        for name in ["weft-controller", "weft-injector"] {
            api.remove(&format!("{WEFT}/{name}"));
        }
        api
    };
    let (_, report, table) = checked(&gone(), WELL, &[]).await;
    assert!(
        with(&report, &["error"]).contains(&"left-over".to_owned()),
        "{report:#}"
    );
    let command = "weft uninstall | kubectl delete --ignore-not-found -f -";
    assert!(table.contains(command), "{table}");
    assert!(table.contains("5 lead to namespace weft-system"), "{table}");
    // A mesh that is installed elsewhere is not gone.
    let api = gone();
    let service = json!({"name": "weft-injector", "namespace": "mesh"});
    let webhooks = json!({"metadata": {}, "webhooks": [{"name": "a",
        "clientConfig": {"caBundle": secret(&root(2999)), "service": service}}]});
    api.put(MUTATING, webhooks);
    let (_, report, _) = checked(&api, WELL, &[]).await;
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == "left-over");
    let check = check.unwrap();
    assert_eq!(check["result"], "skipped", "{check}");
    let message = check["message"].as_str().unwrap();
    assert!(message.ends_with("say --weft-namespace mesh"), "{message}");
    // Nothing is left where nothing was.
    let api = gone();
    for path in [MUTATING, VALIDATING] {
        api.remove(path);
    }
    for name in API_SERVICES {
        api.remove(&format!("{API}/{name}"));
    }
    let (_, report, _) = checked(&api, WELL, &[]).await;
    assert!(
        with(&report, &["ok"]).contains(&"left-over".to_owned()),
        "{report:#}"
    );
}

#[test]
fn variables_and_names_are_those_of_the_chart() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft/templates");
    let read = |file: &str| std::fs::read_to_string(chart.join(file)).unwrap();
    let deployment = read("controller/deployment.yaml");
    let services = read("aggregated/rbac.yaml");
    assert!(deployment.contains("- name: controller\n"), "{deployment}");
    let ttl = format!("{{name: {}, value:", data::LEAF_TTL);
    assert!(deployment.contains(&ttl), "{deployment}");
    for (_, variable, names) in control::APIS {
        assert!(deployment.contains(&format!("{{name: {variable}, value:")));
        for name in *names {
            assert!(services.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
