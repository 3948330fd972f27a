//! Aggregated APIs that are there, and those that should be.

use std::path::Path;

use super::*;

#[tokio::test]
async fn api_service_that_is_gone_is_found_where_the_controller_is_told_to_serve_it() {
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
