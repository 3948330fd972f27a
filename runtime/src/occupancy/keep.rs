//! How a connection is served while it has its permit.

use super::Permit;

impl Permit {
    /// Serves a connection for as long as it may keep its permit.
    pub async fn keep(&self, serving: impl Future<Output = ()>) {
        tokio::select! {
            // What has come is read before that it was late counts: a process that stood
            // still finds both, and a request that has begun goes on.
            biased;
            () = serving => {}
            () = self.cut() => {}
        }
    }
}
