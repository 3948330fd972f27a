//! The wish to end, as everything that serves hears of it.

use tokio::sync::watch;

/// Resolves when `stop` says true or nobody can say it any more.
pub async fn requested(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
