//! Requests at a fixed rate, whatever the answers do.
//!
//! Latency counts from the moment at which a request was due, not from when it
//! was sent: a slow answer delays its connection's next request, and that wait
//! is part of what a user would have felt. So a stall is seen in full.
//!
//! Timers are the kernel's (timerfd); a runtime's own have steps of a
//! millisecond, which is more than most answers take.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use crate::exchange::{LONGEST_ANSWER, read_answer};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    /// Requests per second, all connections together.
    pub(crate) rate: u32,
    pub(crate) connections: u32,
    /// Sent at the same rate but not in the figures.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Latencies of one run, in ascending order.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
    /// Requests sent, those of the warm-up included.
    pub(crate) sent: u64,
}

impl Latencies {
    /// The nearest rank: `share` of all requests took no longer.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        let at = rank.clamp(1, self.sorted.len().max(1)) - 1;
        self.sorted.get(at).copied().unwrap_or_default()
    }
}

/// Runs the load on the calling thread.
///
/// # Errors
/// When a connection fails or an answer is not 200.
pub(crate) fn run(load: Load, path: &str, host: &str) -> Result<Latencies> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let whole = load.warm_up + load.measured + Duration::from_secs(5);
    runtime.block_on(async {
        let running = async {
            let mut streams = Vec::new();
            for _ in 0..load.connections {
                let stream = TcpStream::connect(load.target).await?;
                stream.set_nodelay(true)?;
                streams.push(stream);
            }
            let start = Instant::now() + Duration::from_millis(20);
            let tasks: Vec<_> = (0..)
                .zip(streams)
                .map(|(index, stream)| {
                    tokio::spawn(one_connection(load, index, stream, request.clone(), start))
                })
                .collect();
            let mut all = Latencies {
                sorted: Vec::new(),
                sent: 0,
            };
            for task in tasks {
                let (latencies, sent) = task.await??;
                all.sorted.extend(latencies);
                all.sent += sent;
            }
            all.sorted.sort_unstable();
            Ok(all)
        };
        tokio::time::timeout(whole, running)
            .await
            .context("the fixed rate could not be held")?
    })
}

/// Every `connections`-th request of the schedule, beginning with `index`.
async fn one_connection(
    load: Load,
    index: u32,
    mut stream: TcpStream,
    request: String,
    start: Instant,
) -> Result<(Vec<Duration>, u64)> {
    let mut alarm = Alarm::new()?;
    let gap = Duration::from_secs(1) / load.rate;
    let measured_from = start + load.warm_up;
    let end = measured_from + load.measured;
    let mut due = start + gap * index;
    let (mut latencies, mut sent) = (Vec::new(), 0);
    let mut answer = vec![0; LONGEST_ANSWER];
    while due < end {
        alarm.wait_until(due).await?;
        stream.write_all(request.as_bytes()).await?;
        let head = read_answer(&mut stream, &mut answer).await?;
        ensure!(head.status == 200, "answered {}", head.status);
        sent += 1;
        if due >= measured_from {
            latencies.push(due.elapsed());
        }
        due += gap * load.connections;
    }
    Ok((latencies, sent))
}

/// The kernel's timer.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<std::os::fd::OwnedFd>);

impl Alarm {
    #[expect(
        deprecated,
        reason = "the successor is unsafe; an owned descriptor meets what it asks"
    )]
    pub(crate) fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(
            TimerfdClockId::Monotonic,
            flags,
        )?)?))
    }

    /// Returns at once when `due` has passed.
    pub(crate) async fn wait_until(&mut self, due: Instant) -> Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let when = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &when)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            let read =
                ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
            if let Ok(read) = read {
                read?;
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Latencies;

    #[test]
    fn a_quantile_is_a_latency_that_was_seen() {
        let sorted = (1..=1000).map(Duration::from_micros).collect();
        let latencies = Latencies { sorted, sent: 1000 };
        assert_eq!(latencies.quantile(0.5), Duration::from_micros(500));
        assert_eq!(latencies.quantile(0.99), Duration::from_micros(990));
        assert_eq!(latencies.quantile(1.0), Duration::from_micros(1000));
    }
}
