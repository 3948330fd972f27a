//! The newest compiled model, for everybody who needs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{debug, info};

use crate::model::{Model, PodId};
use crate::problem::Problems;
use crate::world::World;

/// One World, compiled.
#[derive(Debug)]
pub struct Compiled {
    /// What it was made from.
    pub world: Arc<World>,
    /// What proxies are told.
    pub model: Model,
    /// What authors are told.
    pub problems: Problems,
    /// When it was made.
    pub at: SystemTime,
    /// Pods with a proxy by uid, which is what their certificates name.
    pods: HashMap<Arc<str>, PodId>,
}

impl Compiled {
    /// Puts together what was compiled now.
    pub fn new(world: Arc<World>, model: Model, problems: Problems) -> Self {
        let by_uid = |id: &PodId| Some((model.pod(id)?.uid, id.clone()));
        let pods = model.meshed_pods().filter_map(by_uid).collect();
        Self {
            world,
            model,
            problems,
            at: SystemTime::now(),
            pods,
        }
    }

    /// The pod with a proxy that has this uid.
    pub fn pod_by_uid(&self, uid: &str) -> Option<&PodId> {
        self.pods.get(uid)
    }
}

/// The latest of them; `None` until every store has synced.
pub type Latest = watch::Receiver<Option<Arc<Compiled>>>;

/// Compiles every World that `worlds` brings. Ends with it.
pub async fn run<F>(
    mut worlds: watch::Receiver<Option<Arc<World>>>,
    publish: watch::Sender<Option<Arc<Compiled>>>,
    compile: F,
) where
    F: Fn(&World) -> (Model, Problems),
{
    loop {
        let world = worlds.borrow_and_update().clone();
        if let Some(world) = world {
            let start = std::time::Instant::now();
            let (model, problems) = compile(&world);
            debug!(
                micros = start.elapsed().as_micros(),
                problems = problems.list.len(),
                "compiled"
            );
            let compiled = Compiled::new(world, model, problems);
            let first = publish.send_replace(Some(Arc::new(compiled))).is_none();
            if first {
                info!("first model is ready");
            }
        }
        if worlds.changed().await.is_err() {
            return;
        }
    }
}
