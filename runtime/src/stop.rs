//! The signal to stop, from the kubelet or a terminal, as every server receives it.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio::sync::watch;

/// Resolves when `stop` is true or its sender is gone.
pub async fn requested(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A future that ends with the name of the first SIGTERM or SIGINT.
///
/// The handlers are in place when this returns, not when the future is first
/// polled: as process 1 of a container a SIGTERM without handler is ignored.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn signal() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sigterm_before_the_first_poll_is_not_lost() {
        let wish = signal().unwrap();
        let sent = Command::new("kill")
            .args(["-TERM", &std::process::id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let name = tokio::time::timeout(Duration::from_secs(5), wish).await;
        assert_eq!(name.unwrap(), "SIGTERM");
    }
}
