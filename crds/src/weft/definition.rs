//! Builds the CustomResourceDefinitions of group `weft.dev` from the Rust types.

use kube::Resource;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{
    AUTHORITY, CanaryRelease, CanaryReleaseSpec, CanaryReleaseStatus, CertificateAuthority,
    CertificateAuthoritySpec, CertificateAuthorityStatus, ExternalService, ExternalServiceSpec,
    ExternalServiceStatus, FaultExperiment, FaultExperimentSpec, FaultExperimentStatus, GROUP,
    Revocation, RevocationSpec, RevocationStatus, TrafficPolicy, TrafficPolicySpec,
    TrafficPolicyStatus, VERSION,
};
use crate::smi::{FAILING_PATH, schema};

/// Short name of TrafficPolicy.
const TRAFFIC_POLICY: &str = "tp";
/// Short name of CanaryRelease.
const CANARY_RELEASE: &str = "crel";
/// Short name of FaultExperiment.
const FAULT_EXPERIMENT: &str = "fexp";
/// Short name of ExternalService.
const EXTERNAL_SERVICE: &str = "xs";
/// Short name of CertificateAuthority.
const CERTIFICATE_AUTHORITY: &str = "wca";
/// Short name of Revocation.
const REVOCATION: &str = "rev";

/// The CustomResourceDefinitions of the kinds of this group that users make in namespaces, each with
/// its plural.
pub fn definitions() -> Vec<(String, Value)> {
    vec![
        definition::<TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus>(
            TRAFFIC_POLICY,
            "Says how calls to Services are made and served: timeouts, retries, limits and more.",
            "What is asked for. A section that is left out is another policy's.",
            &policy_columns(),
        ),
        definition::<CanaryRelease, CanaryReleaseSpec, CanaryReleaseStatus>(
            CANARY_RELEASE,
            "Gives a new revision of a Deployment its calls step by step, and takes them back.",
            "Which Deployment is released, in which steps, by which checks.",
            &release_columns(),
        ),
        definition::<FaultExperiment, FaultExperimentSpec, FaultExperimentStatus>(
            FAULT_EXPERIMENT,
            "Makes a share of the calls to a Service fail or wait for a time, and ends by itself.",
            "Which calls meet which fault, for how long, and what must hold meanwhile.",
            &experiment_columns(),
        ),
        definition::<ExternalService, ExternalServiceSpec, ExternalServiceStatus>(
            EXTERNAL_SERVICE,
            "Names what pods may call outside the mesh, and how these calls leave.",
            "Which hosts and addresses may be called, at which ports, by which callers.",
            &external_columns(),
        ),
    ]
}

/// The CustomResourceDefinition of CertificateAuthority, with its plural. Its only object is made by
/// the controller.
pub fn authority_definition() -> (String, Value) {
    let (plural, mut definition) =
        definition::<CertificateAuthority, CertificateAuthoritySpec, CertificateAuthorityStatus>(
            CERTIFICATE_AUTHORITY,
            "The certificate authority of the mesh: its roots, its issuers, and their rotation.",
            "What is asked of it. Empty when nothing is.",
            &authority_columns(),
        );
    definition["spec"]["scope"] = "Cluster".into();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["x-kubernetes-validations"] = json!([{
        "rule": format!("self.metadata.name == '{AUTHORITY}'"),
        "message": format!("must be named {AUTHORITY}: the mesh has one certificate authority"),
    }]);
    (plural, definition)
}

/// The CustomResourceDefinition of Revocation, with its plural. Its objects concern the whole mesh.
pub fn revocation_definition() -> (String, Value) {
    let (plural, mut definition) = definition::<Revocation, RevocationSpec, RevocationStatus>(
        REVOCATION,
        "Identities that every proxy and controller of the mesh refuses while the object is there.",
        "What is revoked, and why.",
        &revocation_columns(),
    );
    definition["spec"]["scope"] = "Cluster".into();
    (plural, definition)
}

fn definition<K, Spec, Status>(
    short_name: &str,
    description: &str,
    spec_description: &str,
    columns: &Value,
) -> (String, Value)
where
    K: Resource<DynamicType = ()>,
    Spec: JsonSchema,
    Status: JsonSchema,
{
    let plural = K::plural(&()).into_owned();
    let kind = K::kind(&());
    let mut spec = schema::<Spec>();
    spec["description"] = spec_description.into();
    let mut status = schema::<Status>();
    status["description"] =
        "What the mesh says about it; left out until then. Written by Weft only.".into();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{GROUP}") },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [short_name],
                "categories": ["weft"],
            },
            "conversion": { "strategy": "None" },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": description,
                    "required": ["spec"],
                    "properties": { "spec": spec, "status": status },
                } },
                "subresources": { "status": {} },
            }],
        },
    });
    (plural, definition)
}

/// One column of `kubectl get`; what has a priority above 0 is shown with `-o wide` only.
fn column(name: &str, kind: &str, path: &str, description: &str, priority: u8) -> Value {
    json!({
        "name": name,
        "type": kind,
        "jsonPath": path,
        "description": description,
        "priority": priority,
    })
}

/// A field of a condition.
fn condition(name: &str, of: &str, field: &str, description: &str, priority: u8) -> Value {
    let path = format!(r#".status.conditions[?(@.type=="{of}")].{field}"#);
    column(name, "string", &path, description, priority)
}

fn state(of: &str, description: &str, priority: u8) -> Value {
    condition(of, of, "status", description, priority)
}

/// A column of text that is always shown.
fn text(name: &str, path: &str, description: &str) -> Value {
    column(name, "string", path, description, 0)
}

fn resolved_refs() -> Value {
    let description = "Whether everything that it names exists and fits.";
    state("ResolvedRefs", description, 1)
}

fn programmed(priority: u8) -> Value {
    let description = "Whether the proxies that need it serve it.";
    state("Programmed", description, priority)
}

fn summary() -> Value {
    let description = "What happens, and what comes next.";
    text("Message", ".status.summary", description)
}

fn age() -> Value {
    column(
        "Age",
        "date",
        ".metadata.creationTimestamp",
        "Time since it was made.",
        0,
    )
}

fn policy_columns() -> Value {
    json!([
        text("Target", ".status.target", "What it is about."),
        text(
            "Sections",
            ".status.summary",
            "What it says something about."
        ),
        text("Breaker", ".status.breaker.state", "What its breaker does."),
        state(
            "Accepted",
            "Whether it can be understood, and wins something.",
            1
        ),
        resolved_refs(),
        programmed(0),
        column(
            "Message",
            "string",
            FAILING_PATH,
            "What is wrong, by the first condition that is False.",
            1
        ),
        condition(
            "Proxies",
            "Programmed",
            "message",
            "How many proxies serve it.",
            1
        ),
        age(),
    ])
}

fn release_columns() -> Value {
    json!([
        text("Service", ".spec.service", "Whose calls are shared out."),
        text("Phase", ".status.phase", "What the release does."),
        text(
            "Step",
            ".status.progress",
            "The step, and how many there are."
        ),
        column(
            "Weight",
            "integer",
            ".status.run.weight",
            "Percent of calls that the step gives to the candidate.",
            0
        ),
        text(
            "Candidate",
            ".status.candidate.revision",
            "The revision that is released."
        ),
        summary(),
        state(
            "Accepted",
            "Whether it can be understood and has an effect.",
            1
        ),
        resolved_refs(),
        programmed(1),
        age(),
    ])
}

fn experiment_columns() -> Value {
    json!([
        text(
            "Target",
            ".spec.targetRef.name",
            "Whose callers meet the fault."
        ),
        text("Share", ".spec.share", "Share of the calls that meet it."),
        text("Phase", ".status.phase", "What the experiment does."),
        text("Verdict", ".status.verdict", "How its last run ended."),
        summary(),
        state("Accepted", "Whether it can be understood and may run.", 1),
        resolved_refs(),
        programmed(1),
        age(),
    ])
}

fn external_columns() -> Value {
    json!([
        text("Hosts", ".status.summary", "The hosts and addresses."),
        text("Ports", ".status.target", "The ports that callers use."),
        text(
            "Gateway",
            ".spec.gateway.name",
            "The Gateway by which calls leave; each caller's own proxy where it is empty."
        ),
        state(
            "Accepted",
            "Whether it can be understood and has an effect.",
            1
        ),
        resolved_refs(),
        programmed(0),
        column(
            "Message",
            "string",
            FAILING_PATH,
            "What is wrong, by the first condition that is False.",
            1
        ),
        age(),
    ])
}

fn revocation_columns() -> Value {
    json!([
        text("Subjects", ".status.summary", "What is revoked."),
        text(
            "Issued-Before",
            ".spec.issuedBefore",
            "Only certificates that were issued before; all where it is empty."
        ),
        state(
            "Accepted",
            "Whether every subject can be understood and may be revoked.",
            1
        ),
        resolved_refs(),
        programmed(0),
        condition(
            "Message",
            "Programmed",
            "message",
            "How many proxies refuse it.",
            0
        ),
        column(
            "Wrong",
            "string",
            FAILING_PATH,
            "What is wrong, by the first condition that is False.",
            1
        ),
        age(),
    ])
}

fn authority_columns() -> Value {
    json!([
        text("Phase", ".status.phase", "What the authority does."),
        text("Source", ".status.source", "Where its issuer comes from."),
        text(
            "Root-Ends",
            ".status.rootEnds",
            "How long its root is valid."
        ),
        text(
            "Issuer-Ends",
            ".status.issuerEnds",
            "How long its issuer is valid."
        ),
        text(
            "Trusting",
            ".status.trusting",
            "Proxies that trust its first root."
        ),
        text(
            "Renewed",
            ".status.renewed",
            "Proxies whose certificate is under its first root."
        ),
        summary(),
        state(
            "Usable",
            "Whether leaves can be issued, and nothing of its source is refused.",
            1
        ),
        state(
            "Rotating",
            "Whether one root or issuer replaces another.",
            1
        ),
        state("Expiring", "Whether something of it ends soon.", 1),
    ])
}

#[cfg(test)]
mod tests;
