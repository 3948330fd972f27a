//! The table of all checks, each with its meaning and what to do. The page `docs/checks.md` is
//! made from it.

use std::fmt::Write as _;

use super::facts::{CheckResult, Facts};
use super::{
    applications, authority, control, data, egress, experiments, gateways, objects, platform,
    releases, routes, webhooks,
};

/// One check.
pub(super) struct CheckDefinition {
    /// Done with `--pre`, and otherwise not.
    pub(super) pre: bool,
    pub(super) category: &'static str,
    pub(super) id: &'static str,
    /// What it looks at.
    meaning: &'static str,
    /// What to do.
    pub(super) hint: &'static str,
    pub(super) evaluate: fn(&Facts) -> CheckResult,
}

/// Of the cluster itself; done always.
pub(super) const KUBERNETES: &str = "kubernetes";
const INSTALL: &str = "install";
const CONTROL: &str = "control-plane";
const DATA: &str = "data-plane";
const OBJECTS: &str = "objects";

const fn check(
    category: &'static str,
    id: &'static str,
    evaluate: fn(&Facts) -> CheckResult,
    meaning: &'static str,
    hint: &'static str,
) -> CheckDefinition {
    CheckDefinition {
        pre: false,
        category,
        id,
        meaning,
        hint,
        evaluate,
    }
}

const fn before(
    id: &'static str,
    evaluate: fn(&Facts) -> CheckResult,
    meaning: &'static str,
    hint: &'static str,
) -> CheckDefinition {
    CheckDefinition {
        pre: true,
        ..check(INSTALL, id, evaluate, meaning, hint)
    }
}

/// In the order in which they are reported.
pub(super) const CHECKS: &[CheckDefinition] = &[
    check(
        KUBERNETES,
        "kubernetes-version",
        platform::version,
        "Kubernetes is 1.33 or newer",
        "upgrade the cluster; older API servers lack what native sidecars and selectable fields need",
    ),
    check(
        KUBERNETES,
        "clocks",
        platform::clocks,
        "this machine's clock and the API server's differ by less than five seconds",
        "run a time service on both; certificates and Leases go by the clock",
    ),
    before(
        "rights",
        platform::rights,
        "the user may create what the chart holds",
        "install as a cluster-admin",
    ),
    before(
        "foreign-definitions",
        platform::foreign_definitions,
        "no other product owns the SMI definitions",
        "set crds.smi.install=false to use theirs, or crds.smi.takeOver=true to take them over",
    ),
    before(
        "aggregation",
        platform::aggregation,
        "the API server passes requests on to aggregated APIs",
        "start the API server with --requestheader-client-ca-file, or set metricsApi.enabled=false",
    ),
    check(
        CONTROL,
        "controller",
        control::controller,
        "every replica of the controller is ready",
        "kubectl -n weft-system describe deployment weft-controller",
    ),
    check(
        CONTROL,
        "injector",
        control::injector,
        "every replica of the injector is ready",
        "kubectl -n weft-system describe deployment weft-injector",
    ),
    check(
        CONTROL,
        "node-agents",
        control::node_agents,
        "with capture.mode=node an agent runs on every node that weft-node is meant for",
        "kubectl -n weft-system describe daemonset weft-node; new meshed pods of a node without one wait in weft-capture",
    ),
    check(
        CONTROL,
        "single-replicas",
        control::single_replicas,
        "controller and injector have two replicas at least",
        "set controller.replicas and injector.replicas to 2 or more",
    ),
    check(
        CONTROL,
        "versions",
        control::versions,
        "controller and injector have the version of this command",
        "upgrade the release, or use the command of its version",
    ),
    check(
        CONTROL,
        "lease",
        control::lease,
        "one controller holds the Lease and renews it",
        "look at the controllers' logs; without a holder no status, Event or trust bundle is written",
    ),
    check(
        CONTROL,
        "certificate-authority",
        control::root,
        "the root that all proxies trust has sixty days left, or two ninths of a shorter life",
        "rotate it with weft identity rotate; a root that Weft makes is rotated by itself at two thirds of its life (docs/rotation.md)",
    ),
    check(
        CONTROL,
        "issuer",
        control::issuer,
        "the issuer that signs proxies' certificates has a week left, or two ninths of a shorter life",
        "the Lease holder renews it; if the root's key is elsewhere, renew it there",
    ),
    check(
        CONTROL,
        "rotation",
        authority::rotation,
        "no rotation of the certificate authority waits for more than ten minutes in one phase",
        "the message names what it waits for; a proxy without a stream counts until its certificate has ended (docs/rotation.md#what-a-rotation-waits-for)",
    ),
    check(
        CONTROL,
        "issuer-source",
        authority::issuer_source,
        "what the source of the issuer offers is in use",
        "correct the field that the message names; the former issuer signs meanwhile (docs/rotation.md#your-own-issuer)",
    ),
    check(
        CONTROL,
        "revocations",
        authority::revocations,
        "every Revocation is accepted and refused by all proxies a minute after it was made",
        "kubectl describe rev it; the message names the subject, or the proxies that lack it: restart those that are too old (docs/revocation.md)",
    ),
    check(
        CONTROL,
        "trust-bundles",
        control::bundles,
        "every namespace has the same trust bundle",
        "find out what writes ConfigMap weft-trust-bundle; the controller restores it",
    ),
    check(
        CONTROL,
        "definitions",
        control::definitions,
        "every SMI kind is served in the version that Weft stores",
        "set crds.smi.install=true, or install definitions with v1alpha4",
    ),
    check(
        CONTROL,
        "webhooks",
        webhooks::webhooks,
        "the webhook configurations are there",
        "helm upgrade restores them",
    ),
    check(
        CONTROL,
        "ca-bundles",
        webhooks::ca_bundles,
        "every webhook and definition trusts the authority that signs for the injector, and it has not ended",
        "the injector writes caBundle; look at its logs, and for what else writes it",
    ),
    check(
        CONTROL,
        "injection",
        webhooks::injection,
        "a pod that requests a proxy gets one",
        "look at the injector's logs and at NetworkPolicies between the API server and port 8443",
    ),
    check(
        CONTROL,
        "validation",
        webhooks::validation,
        "an SMI object that cannot mean anything is refused",
        "look at the injector's logs; until then errors show in status only",
    ),
    check(
        CONTROL,
        "api-services",
        control::api_services,
        "the aggregated APIs that the controller is configured to serve are there and answer",
        "helm upgrade restores an APIService that is missing; one that is unavailable holds up the deletion of namespaces: look at the controller, or switch metricsApi.enabled or observe.enabled off",
    ),
    check(
        CONTROL,
        "left-over",
        control::left_over,
        "what of the mesh is in no namespace leads to a controller or an injector",
        "if the mesh is to go, weft uninstall | kubectl delete --ignore-not-found -f - deletes what holds up pods and the deletion of namespaces; if it is to stay, helm upgrade --install brings it back",
    ),
    check(
        DATA,
        "pods-without-proxy",
        data::without_proxy,
        "every pod that requested a proxy has one",
        "restart their workloads: kubectl rollout restart",
    ),
    check(
        DATA,
        "admission",
        data::admission,
        "nothing of a namespace that requests proxies keeps pods out because of them: ResourceQuota, LimitRange, or a level of Pod Security",
        "set the annotations of the Namespace that the message names, proxy.limits in the chart's values for all namespaces, or the level, which capture.mode=node makes needless (docs/applications.md#no-pod-starts)",
    ),
    check(
        DATA,
        "old-proxies",
        data::old,
        "no proxy is three minor versions older than the controller",
        "restart their workloads: kubectl rollout restart",
    ),
    check(
        DATA,
        "connected",
        data::connected,
        "every proxy is connected to a controller, but for those of revoked pods, which check revocations names",
        "look at the log of container weft-proxy; it keeps its last configuration meanwhile",
    ),
    check(
        DATA,
        "acknowledged",
        data::acknowledged,
        "no proxy has lacked something that concerns it for more than a minute",
        "weft proxies shows which; look at the log of container weft-proxy and at the controllers'",
    ),
    check(
        DATA,
        "refusals",
        data::refusals,
        "no proxy refused a configuration",
        "the object's condition Programmed says why; the proxy goes on with the version before",
    ),
    check(
        DATA,
        "certificates",
        data::certificates,
        "no proxy's certificate is about to end",
        "look at the log of container weft-proxy; certificates are renewed at two thirds of their life",
    ),
    check(
        DATA,
        "proxy-clocks",
        data::clocks,
        "proxies' clocks and the controller's differ by less than five seconds",
        "run a time service on the nodes",
    ),
    check(
        DATA,
        "release-gates",
        releases::release_gates,
        "every pod that waits for the gate of a CanaryRelease is held by one that has a run, and no release is rolled back, has let a refused revision through or has no calls to check",
        "of a refused revision revert the Deployment (kubectl rollout undo), or weft release retry; of any other pod kubectl rollout restart of the Deployment makes pods without a gate, which an uninstall without its hook needs",
    ),
    check(
        DATA,
        "faults-running",
        experiments::faults_running,
        "no FaultExperiment harms calls at the moment",
        "weft fault stop NAME ends a run, and weft fault stop --all every one in the mesh",
    ),
    check(
        DATA,
        "egress-walls",
        egress::egress_walls,
        "every pod whose weft.dev/egress is deny has a proxy and skips no outgoing call",
        "restart its workload for a proxy, and take the skipped ports and networks out of the annotations (docs/egress.md#what-a-wall-does-not-stop)",
    ),
    check(
        DATA,
        "applications",
        applications::applications,
        "no pod meets a line of docs/applications.md that can be seen from the pod or its autoscaler",
        "it is ok too, and the message names the pods and the line, which says why it is so and what to do",
    ),
    check(
        OBJECTS,
        "accepted",
        objects::accepted,
        "every SMI object can be understood",
        "kubectl describe it; condition Accepted says which field",
    ),
    check(
        OBJECTS,
        "resolved",
        objects::resolved,
        "everything that SMI objects name exists and fits",
        "kubectl describe it; condition ResolvedRefs says which field it is about",
    ),
    check(
        OBJECTS,
        "gateway-routes",
        routes::gateway_routes,
        "every route of the Gateway API with a Service or a Gateway of Weft as parent is in force as it is written",
        "kubectl describe it; the conditions of weft.dev/mesh and weft.dev/gateway say which field, and docs/gateway-api.md what each reason means",
    ),
    check(
        OBJECTS,
        "gateways",
        gateways::gateways,
        "every Gateway of Weft is accepted and programmed, has an address, and serves certificates that last for two weeks",
        "kubectl describe it; its conditions and those of its listeners say what is missing, and docs/gateways.md what each reason means",
    ),
    check(
        OBJECTS,
        "annotations",
        objects::annotations,
        "annotations of the mesh have names that are read where they stand, and values that mean something",
        "docs/reference.md#labels-and-annotations has the names, where each acts, and the values; a mode that cannot be read counts as the tightest",
    ),
    check(
        OBJECTS,
        "labels",
        objects::labels,
        "requests for injection and other labels of the mesh are spelt and placed so that they count",
        "write weft.dev/inject=enabled or disabled as a label of the Namespace or Pod; docs/reference.md#labels-and-annotations has the other names",
    ),
];

/// `docs/checks.md`.
#[must_use]
pub fn page() -> String {
    let mut page = "\
# Checks

Made from the checks by `WEFT_WRITE_GENERATED=1 cargo test -p cli checks`; edit those.

What `weft check` looks at. Results are ok, warning, error, and skipped where the user may not see
what a check needs, or where nothing is wrong with the first 20 000 objects of a list that has more:
these alone are read. `--pre` looks at a cluster before Weft is installed, `--wait 2m` tries again
until nothing fails, also while the API server does not answer, `--fail-on warning` makes a warning
fail too. Where every check but those of the cluster itself is skipped, nothing is known of the mesh,
and the exit status is 3. So it is where some are skipped because the controller or the API server
had too much to answer (429), which `--wait` waits for too. Each answer is waited for 12 s at most,
whatever `--request-timeout` says, and all of them for 30 s.

With `-n` the pods, proxies and objects of that namespace alone are looked at, which takes no more
than the right to view it; where the Gateway API is installed its routes are skipped without the
right to list them, which Kubernetes' role view does not have. Namespaces in which nothing is injected (value excludedNamespaces) and the
mesh's own are left out. A proxy is no fault for being without a controller while its pod ends, or in
the first minute of the pod or of the proxy. The table names in one line what the user may not see;
`-o json` has each check with its reason, and `error` alone where the API server does not answer.
"
    .to_owned();
    let mut category = "";
    for check in CHECKS {
        if check.category != category {
            category = check.category;
            let _ = write!(page, "\n## {category}\n");
        }
        let CheckDefinition {
            id, meaning, hint, ..
        } = check;
        let _ = write!(page, "\n### {id}\n\nHolds when {meaning}. Else: {hint}.\n");
    }
    page
}
