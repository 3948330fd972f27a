//! Encodes a pod's own configuration: its modes, the protocols of its ports, its rules, and what
//! its proxy logs and records.

use std::sync::Arc;

use policy::{access, mode::Enforcement};
use wire::{names, v1};

use crate::{
    model::{Index, Target, faults, modes, protocols, published::EncodedResource, telemetry},
    resources::attributes,
    world::{ObjectKey, PodFacts},
};

impl Index {
    /// What a pod is, what its proxy is to tell, and the pod's rules.
    pub(crate) fn workload(&self, key: &ObjectKey, facts: &PodFacts) -> &[Arc<EncodedResource>] {
        let Some(entry) = self.pods.get(key) else {
            return &[];
        };
        entry
            .workload
            .get_or_init(|| self.make_workload(key, facts))
    }

    /// The declared protocols of a pod's ports.
    pub fn pod_protocols(&self, key: &ObjectKey, facts: &PodFacts) -> protocols::Declared {
        let namespace = self.world.namespace(&key.namespace);
        let declared = self.pods.get(key).map(|entry| &entry.declared);
        protocols::of_pod(facts, namespace, declared)
    }

    fn make_workload(&self, key: &ObjectKey, facts: &PodFacts) -> Vec<Arc<EncodedResource>> {
        let targets: Vec<&Target> = self.targets.of(key, facts).collect();
        let namespace = self.world.namespace(&key.namespace);
        let enforcement = self.enforcement(key, facts, &targets);
        let entry = self.pods.get(key);
        let workload = v1::Workload {
            namespace: key.namespace.to_string(),
            pod: key.name.to_string(),
            identity: self.identity(key, facts),
            enforcement: v1::Enforcement::from(enforcement).into(),
            mtls: v1::MtlsMode::from(modes::mtls(&self.defaults, namespace, &facts.annotations))
                .into(),
            ports: self
                .pod_protocols(key, facts)
                .ranges(&facts.ports)
                .map(wire::convert::port_protocol)
                .collect(),
            zone: self.world.zone(&facts.node).to_owned(),
            node: facts.node.to_string(),
            ips: facts.ips.iter().map(ToString::to_string).collect(),
            permissive_ports: modes::permissive_ports(
                &self.defaults,
                namespace,
                &facts.annotations,
            )
            .into_iter()
            .map(wire::convert::port_range)
            .collect(),
            early_reports: entry.is_some_and(|entry| self.counts_early(entry)),
            fault_limit: faults::limit(namespace).millionths(),
        };
        // Whether a target protects shows in the enforcement, so it is an origin.
        let origins = targets.iter().map(|target| target.origin.clone()).collect();
        let content = v1::resource::Content::Workload(workload);
        let mut resources = vec![Arc::new(EncodedResource::new(
            names::WORKLOAD.to_owned(),
            content,
            origins,
        ))];
        resources.push(Arc::new(self.telemetry(key, facts)));
        // Nothing is refused when open, so no rule is needed.
        if enforcement != Enforcement::Open {
            resources.extend(targets.into_iter().filter_map(|target| rule(target, key)));
        }
        resources
    }

    /// What the proxy of a pod is to report; sent also where no object says anything, so that it
    /// forgets what it was started with.
    fn telemetry(&self, key: &ObjectKey, facts: &PodFacts) -> EncodedResource {
        let (namespace, pod) = (self.world.namespace(&key.namespace), &facts.annotations);
        let tracing = telemetry::tracing(&self.defaults, namespace, pod);
        let message = v1::Telemetry {
            log_filter: telemetry::log_filter(namespace, pod).as_str().to_owned(),
            access_log: telemetry::access_log(namespace, pod).to_string(),
            tracing: tracing.map(|tracing| v1::Tracing {
                resource: attributes::of_pod(key, facts),
                ..v1::Tracing::from(&tracing)
            }),
        };
        let content = v1::resource::Content::Telemetry(message);
        EncodedResource::new(names::TELEMETRY.to_owned(), content, Vec::new())
    }
}

fn rule(target: &Target, pod: &ObjectKey) -> Option<Arc<EncodedResource>> {
    let allowed = target.rule.as_ref()?;
    let publish = |rule: &access::Rule| {
        Arc::new(EncodedResource::stamped(
            wire::convert::rule_resource(rule.into()),
            allowed.origins.clone(),
        ))
    };
    Some(match allowed.mapped.get(pod) {
        None => allowed
            .published
            .get_or_init(|| publish(&allowed.rule))
            .clone(),
        Some(_) => publish(&allowed.on(pod)),
    })
}
