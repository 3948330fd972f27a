//! Gates open where no release in force holds them, and stay as they are where that is not known.

use super::*;

#[tokio::test(start_paused = true)]
async fn deleted_release_opens_its_gates() {
    let mut bench = Bench::releasing().await;
    bench.api.remove(RELEASE);
    bench.look(1).await;
    assert!(bench.is_open(NEW));
    // Nothing else of the pod has changed.
    let pod = bench.api.read(&format!("{PODS}/{NEW}")).unwrap();
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 3, "{pod}");
}

#[tokio::test(start_paused = true)]
async fn suspended_release_opens_its_gates_and_is_idle() {
    let mut bench = Bench::releasing().await;
    bench.edit("/spec/suspend", json!(true));
    bench.edit("/metadata/generation", json!(2));
    bench.look(2).await;
    assert!(bench.is_open(NEW));
    let status = bench.status();
    assert_eq!(bench.phase(), "Idle", "{status}");
    assert_eq!(status["history"][0]["result"], "Bypassed", "{status}");
    assert_eq!(bench.condition("Ready"), pair("True", "Suspended"));
}

#[tokio::test(start_paused = true)]
async fn suspended_release_opens_no_gate_of_another() {
    let mut bench = Bench::releasing().await;
    let mut other = spec();
    other["suspend"] = json!(true);
    let path = format!("{RELEASE}-other");
    let other = cluster::release("web-other", other, json!({}));
    bench.api.put(&path, other);
    bench.look(5).await;
    assert_eq!(bench.api.read(&path).unwrap()["status"]["phase"], "Idle");
    assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
    assert!(!bench.is_open(NEW));
}

#[tokio::test(start_paused = true)]
async fn invalid_release_opens_its_gates() {
    let mut bench = Bench::releasing().await;
    bench.edit("/spec/steps/0/weight", json!(4000));
    bench.edit("/metadata/generation", json!(2));
    bench.look(2).await;
    assert!(bench.is_open(NEW));
    assert_eq!(bench.phase(), "Idle", "{}", bench.status());
    assert_eq!(bench.condition("Accepted").0, "False");
    assert_eq!(bench.condition("Stalled"), pair("True", "NotAccepted"));
    assert_eq!(bench.parts.metrics.times_ended("bypassed"), 1);
}

#[tokio::test(start_paused = true)]
async fn recreate_is_not_accepted_and_opens_gates() {
    let mut bench = Bench::releasing().await;
    bench.api.put(DEPLOYMENT, deployment(2, "Recreate"));
    bench.look(4).await;
    assert!(bench.is_open(NEW));
    let refused = pair("False", "UnsupportedStrategy");
    assert_eq!(bench.condition("Accepted"), refused);
    assert_eq!(bench.phase(), "Idle", "{}", bench.status());
}

#[tokio::test(start_paused = true)]
async fn switched_off_releases_hold_no_gate() {
    let mut bench = Bench::releasing().await;
    bench.parts.enabled = false;
    bench.hand_over();
    bench.look(1).await;
    assert!(bench.is_open(NEW));
    assert_eq!(bench.phase(), "Idle", "{}", bench.status());
}

#[tokio::test(start_paused = true)]
async fn gates_stay_shut_while_releases_cannot_be_listed() {
    let mut bench = Bench::releasing().await;
    bench.api.break_down();
    bench.look(20).await;
    assert!(!bench.is_open(NEW));
    assert!(bench.parts.metrics.failures.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn gates_stay_shut_until_model_knows_the_release() {
    let mut bench = Bench::releasing().await;
    let compiled = bench.parts.latest.borrow().clone();
    bench.edit("/spec/suspend", json!(true));
    bench.edit("/metadata/generation", json!(2));
    bench.models.send_replace(compiled);
    bench.driver.look().await;
    assert!(!bench.is_open(NEW), "the model is older than the spec");
    bench.look(1).await;
    assert!(bench.is_open(NEW));
}

#[tokio::test(start_paused = true)]
async fn pod_that_took_the_name_keeps_its_gate() {
    let mut bench = Bench::releasing().await;
    bench.api.remove(RELEASE);
    bench.compile();
    let other = cluster::set(pod(NEW, 9, "b", false), "/metadata/uid", json!("another"));
    bench.api.put(&format!("{PODS}/{NEW}"), other);
    bench.driver.look().await;
    assert!(!bench.is_open(NEW));
}

#[tokio::test(start_paused = true)]
async fn refused_patch_of_pod_is_tried_again_at_leisure() {
    let mut bench = Bench::releasing().await;
    bench.api.remove(RELEASE);
    let path = format!("{PODS}/{NEW}");
    bench.api.refuse(&path);
    bench.look(60).await;
    let writes = bench.api.writes();
    let tries = writes.iter().filter(|(_, at)| *at == path).count();
    assert!((4..=9).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn refused_revision_stays_shut_while_service_is_applied_again() {
    let mut bench = Bench::refused().await;
    bench.has_service = false;
    bench.look(30).await;
    // Another controller goes on with the same grace.
    bench.hand_over();
    bench.look(20).await;
    assert!(!bench.is_open(NEW));
    assert_eq!(bench.phase(), "RolledBack", "{}", bench.status());
    assert_eq!(bench.condition("ResolvedRefs").1, "RefNotFound");
    bench.has_service = true;
    bench.look(90).await;
    assert!(!bench.is_open(NEW));
    assert_eq!(bench.phase(), "RolledBack", "{}", bench.status());
}

#[tokio::test(start_paused = true)]
async fn refused_revision_that_outlives_its_grace_is_reported() {
    let mut bench = Bench::refused().await;
    bench.has_service = false;
    bench.look(70).await;
    assert!(bench.is_open(NEW));
    let status = bench.status();
    let results = [0_usize, 1].map(|at| status["history"][at]["result"].clone());
    assert_eq!(results, ["Bypassed", "RolledBack"], "{status}");
    let summary = status["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("refused revision b serves: "),
        "{summary}"
    );
    for kind in ["CanaryRelease", "Deployment"] {
        assert_eq!(bench.bypassed(kind).await, summary);
    }
    assert_eq!(bench.parts.metrics.times_ended("bypassed"), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_revision_of_deleted_release_is_reported_on_deployment() {
    let mut bench = Bench::refused().await;
    bench.api.remove(RELEASE);
    bench.look(1).await;
    assert!(bench.is_open(NEW));
    let said = bench.bypassed("Deployment").await;
    let expected = "refused revision b serves: CanaryRelease web was deleted";
    assert!(said.starts_with(expected), "{said}");
}

#[tokio::test(start_paused = true)]
async fn release_that_replaces_another_says_what_it_let_through() {
    let mut bench = Bench::refused().await;
    let other = cluster::release("web", spec(), json!({}));
    bench.api.put(
        RELEASE,
        cluster::set(other, "/metadata/uid", json!("another")),
    );
    bench.look(3).await;
    assert!(bench.is_open(NEW));
    let status = bench.status();
    assert_eq!(status["history"][0]["result"], "Bypassed", "{status}");
    let summary = status["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("refused revision b serves: "),
        "{summary}"
    );
}

#[tokio::test(start_paused = true)]
async fn run_outlives_misspelt_deployment_once_per_absence() {
    let mut bench = Bench::releasing().await;
    let compiled = bench.parts.latest.borrow().clone();
    bench.edit("/spec/deployment", json!("webb"));
    bench.edit("/metadata/generation", json!(2));
    bench.models.send_replace(compiled);
    bench.driver.look().await;
    assert!(!bench.is_open(NEW), "the model is older than the spec");
    bench.look(30).await;
    assert!(!bench.is_open(NEW));
    assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
    bench.edit("/spec/deployment", json!("web"));
    bench.edit("/metadata/generation", json!(3));
    bench.look(2).await;
    assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
    assert_eq!(bench.status()["run"]["number"], 1);
    bench.edit("/spec/deployment", json!("webb"));
    bench.edit("/metadata/generation", json!(4));
    bench.look(50).await;
    assert!(!bench.is_open(NEW), "another absence");
    bench.look(20).await;
    assert!(bench.is_open(NEW));
    assert_eq!(bench.status()["history"][0]["result"], "Bypassed");
}

#[tokio::test(start_paused = true)]
async fn suspended_release_has_no_grace() {
    let mut bench = Bench::releasing().await;
    bench.has_service = false;
    bench.edit("/spec/suspend", json!(true));
    bench.edit("/metadata/generation", json!(2));
    bench.look(2).await;
    assert!(bench.is_open(NEW));
}
