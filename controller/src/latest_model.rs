//! Compiles each new World to a Model, and publishes the newest Model to all tasks.
//!
//! May import nothing else of this crate.

use std::sync::Arc;

use model::{Defaults, Model, compiled::Compiled, world::World};
use tokio::sync::watch;
use tracing::{debug, info};

/// The latest of them; `None` until every store has synced.
pub(crate) type LatestModel = watch::Receiver<Option<Arc<Compiled>>>;

/// Compiles every World that `worlds` brings. Ends with it.
pub(crate) async fn run(
    mut worlds: watch::Receiver<Option<Arc<World>>>,
    publish: watch::Sender<Option<Arc<Compiled>>>,
    defaults: Defaults,
) {
    loop {
        let world = worlds.borrow_and_update().clone();
        if let Some(world) = world {
            let start = std::time::Instant::now();
            let before = publish.borrow().clone();
            let compiled = match &before {
                Some(before) => before.after(world, &defaults),
                None => {
                    let (model, problems) = Model::compile(&world, &defaults);
                    Compiled::new(world, model, problems)
                }
            };
            debug!(
                micros = start.elapsed().as_micros(),
                problems = compiled.problems.list.len(),
                "compiled"
            );
            publish.send_replace(Some(Arc::new(compiled)));
            if before.is_none() {
                info!("first model is ready");
            }
        }
        if worlds.changed().await.is_err() {
            return;
        }
    }
}
