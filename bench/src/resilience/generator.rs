//! Calls at a fixed schedule, whatever becomes of those before: an open loop.
//!
//! A user does not wait for other users. So every call begins when it is due, and how long
//! it took counts from then on, waiting included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use super::client::{Call, Client, Target};
use crate::namespaces::Namespace;
use crate::rate::Alarm;

/// Calls that wait at once, of one caller. What is due beyond is not sent, and counts.
const AT_ONCE: usize = 4096;

/// What one caller does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Calls per second.
    pub(super) rate: f64,
    pub(super) time: Duration,
    /// A caller that has no answer by then closes its connection.
    pub(super) patience: Duration,
    /// The call of this number; numbers of different callers differ.
    pub(super) call: fn(u64) -> Call,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallEnd {
    /// 200, or grpc-status 0.
    Good,
    /// Another answer.
    Refused,
    /// The connection broke, or there was none.
    Broken,
    /// The caller's patience was at its end.
    TimedOut,
    /// The generator has as many calls as it can keep.
    NotSent,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When it was due, since the load began.
    pub(super) due: Duration,
    /// From then to its end.
    pub(super) took: Duration,
    pub(super) end: CallEnd,
}

/// Makes the load from every place at once, and gives the samples of each in order.
/// `begin` may lie a moment ahead.
pub(super) fn run(
    callers: &[(&Namespace, Target)],
    load: Load,
    begin: Instant,
) -> Result<Vec<Vec<Sample>>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = callers
            .iter()
            .zip(0_u64..)
            .map(|(caller, number)| {
                let (namespace, target) = *caller;
                scope.spawn(move || {
                    namespace.within(|| {
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()?;
                        runtime.block_on(one(target, load, begin, number << 32))
                    })
                })
            })
            .collect();
        let joined = running.into_iter().map(|one| match one.join() {
            Ok(samples) => samples,
            Err(_) => bail!("a load panicked"),
        });
        joined.collect()
    })
}

async fn one(target: Target, load: Load, begin: Instant, first: u64) -> Result<Vec<Sample>> {
    let client = Arc::new(Client::new(target));
    let mut alarm = Alarm::new()?;
    let (mut waiting, mut samples) = (JoinSet::new(), Vec::new());
    let all = (load.rate * load.time.as_secs_f64()) as u32;
    for number in 0..all {
        let due = Duration::from_secs_f64(f64::from(number) / load.rate);
        alarm.wait_until(begin + due).await?;
        while let Some(ended) = waiting.try_join_next() {
            samples.push(ended?);
        }
        if waiting.len() >= AT_ONCE {
            samples.push(Sample {
                due,
                took: Duration::ZERO,
                end: CallEnd::NotSent,
            });
            continue;
        }
        let (client, call) = (Arc::clone(&client), (load.call)(first + u64::from(number)));
        waiting.spawn(async move {
            let answer = tokio::time::timeout(load.patience, client.call(&call)).await;
            Sample {
                due,
                took: (begin + due).elapsed(),
                end: match answer {
                    Ok(Ok(true)) => CallEnd::Good,
                    Ok(Ok(false)) => CallEnd::Refused,
                    Ok(Err(_)) => CallEnd::Broken,
                    Err(_) => CallEnd::TimedOut,
                },
            }
        });
    }
    while let Some(ended) = waiting.join_next().await {
        samples.push(ended?);
    }
    samples.sort_by_key(|sample| sample.due);
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::time::{Duration, Instant};

    use super::{Call, CallEnd, Load, Target, one};

    fn get(_: u64) -> Call {
        Call {
            method: "GET",
            path: "/",
            headers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_server_that_never_answers_delays_no_other_call() {
        // The kernel takes the connections; no program reads them.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = Target {
            addr: silent.local_addr().unwrap(),
            host: "web",
            grpc: false,
        };
        let load = Load {
            rate: 100.0,
            time: Duration::from_millis(200),
            patience: Duration::from_millis(300),
            call: get,
        };
        let begin = Instant::now();
        let samples = one(target, load, begin, 0).await.unwrap();
        assert_eq!(samples.len(), 20);
        assert!(samples.iter().all(|sample| sample.end == CallEnd::TimedOut));
        // One after the other they would take six seconds.
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn missing_peer_is_no_timeout() {
        let target = Target {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            host: "web",
            grpc: false,
        };
        let load = Load {
            rate: 100.0,
            time: Duration::from_millis(50),
            patience: Duration::from_secs(5),
            call: get,
        };
        let samples = one(target, load, Instant::now(), 0).await.unwrap();
        assert!(samples.iter().all(|sample| sample.end == CallEnd::Broken));
    }
}
