//! Work on the graph is not done on the thread of connections.

/// Runs something that waits for the state, or takes long, beside the thread of connections.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(made) => made,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The replica ends, and its waiters with it.
        Err(_) => std::future::pending().await,
    }
}
