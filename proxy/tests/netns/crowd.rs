//! Hostile pods beside those that an agent captures.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::agent::{listen, within};
use super::testbed::Namespace;

/// What a process of a hostile pod does with an agent that connects.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    Silent,
    /// It takes no connection.
    Full,
    Trickling,
    Huge,
    Garbled,
    Closing,
}

const HOSTILE: [Hostile; 6] = [
    Hostile::Silent,
    Hostile::Full,
    Hostile::Trickling,
    Hostile::Huge,
    Hostile::Garbled,
    Hostile::Closing,
];

impl Hostile {
    fn treats(self, stream: &mut UnixStream) {
        // Fails when the agent has gone.
        let _ = match self {
            Self::Silent | Self::Full | Self::Closing => Ok(()),
            Self::Trickling => stream.write_all(b"{"),
            Self::Huge => stream.write_all(&[b'x'; 64 * 1024]),
            Self::Garbled => stream.write_all(b"{\"captureAll\": true}\n"),
        };
    }

    /// Until `ended`.
    fn listens(self, ended: &AtomicBool) {
        let listener = listen(if matches!(self, Self::Full) { 0 } else { 16 });
        listener.set_nonblocking(true).unwrap();
        let mut streams = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            if !matches!(self, Self::Full)
                && let Ok((stream, _)) = listener.accept()
            {
                stream.set_nonblocking(true).unwrap();
                streams.push(stream);
            }
            for stream in &mut streams {
                self.treats(stream);
            }
            if matches!(self, Self::Closing) {
                streams.clear();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Hostile pods, each in a namespace of its own.
pub(super) struct Crowd {
    namespaces: Vec<Namespace>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    pub(super) fn of(name: &str, count: usize) -> Self {
        let ended = Arc::<AtomicBool>::default();
        let (mut namespaces, mut threads) = (Vec::new(), Vec::new());
        for (number, kind) in HOSTILE.into_iter().cycle().take(count).enumerate() {
            let namespace = Namespace::new(&format!("{name}-h{number}"));
            let ended = Arc::clone(&ended);
            threads.push(within(&namespace, move || kind.listens(&ended)));
            namespaces.push(namespace);
        }
        Self {
            namespaces,
            ended,
            threads,
        }
    }

    pub(super) fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
