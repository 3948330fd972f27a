//! Gauges of the newest Model, about the whole mesh. Every replica sets them, so they are not to
//! be added up over replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::world::{PodFacts, Store};

use crate::latest_model::LatestModel;
use crate::metrics::WorldMetrics;

/// Sets the gauges from every Model until the Models end.
pub(crate) async fn follow(mut latest: LatestModel, metrics: WorldMetrics) {
    let mut before = BTreeMap::new();
    let mut pods: Store<PodFacts> = Store::default();
    loop {
        let compiled = latest.borrow_and_update().clone();
        if let Some(compiled) = compiled
            && !Arc::ptr_eq(&compiled.world.pods, &pods)
        {
            pods = compiled.world.pods.clone();
            let now = compiled.model.skipped_ports();
            metrics.set_skipped_ports(&before, &now);
            before = now;
        }
        if latest.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use model::compiled::Compiled;
    use model::{Defaults, Model};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use serde_json::json;
    use tokio::sync::watch;

    use super::*;
    use crate::metrics::Metrics;
    use crate::testing::cluster;
    use crate::testing::cluster::Cluster;

    fn compiled(cluster: &Cluster) -> Option<Arc<Compiled>> {
        let world = Arc::new(cluster.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        Some(Arc::new(Compiled::new(world, model, problems)))
    }

    fn skipping(name: &str, ports: &str) -> serde_json::Value {
        let pod = cluster::pod(name, "10.0.0.21", "db");
        let arguments = json!(["capture", "--skip-inbound-ports", ports]);
        cluster::set(pod, "/spec/initContainers/0/args", arguments)
    }

    fn shown(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let lines = text.lines();
        lines
            .filter(|line| line.starts_with("weft_controller_skipped_ports{"))
            .map(str::to_owned)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn skipped_ports_are_summed_per_namespace_of_pods() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let with = cluster::shop()
            .with(skipping("db-1", "5432,9000-9009"))
            .with(skipping("db-2", "5432"));
        let (models, latest) = watch::channel(compiled(&with));
        let following = tokio::spawn(follow(latest, metrics.world));
        tokio::task::yield_now().await;
        let expected = r#"weft_controller_skipped_ports{namespace="shop"} 12"#;
        assert_eq!(shown(&registry), [expected]);
        models.send_replace(compiled(&cluster::shop()));
        drop(models);
        following.await.unwrap();
        assert!(shown(&registry).is_empty());
    }
}
