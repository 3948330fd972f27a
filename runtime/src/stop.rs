//! The signal to end, as every server receives it.

use tokio::sync::watch;

/// Resolves when `stop` is true or its sender is gone.
pub async fn requested(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
