//! The cluster that every measurement uses, and how it grows from one size to the next.
//!
//! One cluster for all sizes: what is there stays, so that a run makes each object once.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::api::Api;
use crate::cluster::{self, Size};
use crate::process::Program;

/// The cluster that is measured, and when that began.
pub(crate) struct Bench {
    pub(crate) api: Api,
    pub(crate) program: Program,
    pub(crate) etcd: u32,
    pub(crate) api_server: u32,
    /// Keys of the cluster, the front proxy's among them.
    pub(crate) pki: PathBuf,
    pub(crate) started: Instant,
}

impl Bench {
    /// Makes what a size has and the one before it has not.
    pub(crate) async fn grow(&self, from: &Size, to: &Size) -> Result<()> {
        self.log_progress(&format!(
            "growing to {} Services, {} Pods",
            to.services,
            to.pods()
        ));
        for wanted in cluster::growth(from, to) {
            self.api.make(wanted).await?;
        }
        Ok(())
    }

    pub(crate) fn log_progress(&self, text: &str) {
        println!("[{:>4} s] {text}", self.started.elapsed().as_secs());
    }
}
