//! `weft-stand-in FILE` is a controller for two proxies without a cluster: it
//! speaks the real protocol over the real TLS and sends what FILE holds. Harnesses
//! that start proxies in network namespaces use it (e2e/interop).
//!
//! FILE is JSON, see [`cluster::Cluster`]. Every call of Certify is answered,
//! because the token is the pod's name. It prints `ready` once it listens, and every
//! refusal of a proxy on standard error as `refused NAME: REASON`.

mod cluster;
#[path = "../../standing_in.rs"]
mod standing_in;

use std::io::{self, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;

use crate::cluster::Cluster;
use crate::standing_in::Authority;

fn main() -> Result<()> {
    let path = std::env::args()
        .nth(1)
        .context("usage: weft-stand-in FILE")?;
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let cluster = Cluster::read(&text).with_context(|| path.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(cluster))
}

async fn serve(cluster: Cluster) -> Result<()> {
    let authority = Authority::new()?;
    std::fs::write(&cluster.root, authority.root.cert_pem())?;
    let listener = TcpListener::bind(cluster.listen).await?;
    println!("ready");
    io::stdout().flush()?;
    standing_in::serve(listener, Arc::new(authority), Arc::new(cluster)).await
}
