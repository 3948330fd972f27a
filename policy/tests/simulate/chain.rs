//! Point 3: a chain a-b-c-d in which d fails. How much more d gets than it would without
//! any retry.

use std::time::Instant;

use http::{Method, StatusCode};
use policy::deadline::Deadline;
use policy::retry::{Attempted, Ended, Next, RequestedWait, RetryBudget, may_retry};
use policy::traffic::set::{GrpcCode, GrpcCodes};
use policy::traffic::without_object::RETRY;

use crate::engine::{Dice, ms, secs, with_every_seed};

/// The callers a, b and c.
const LAYERS: usize = 3;
const PER_SECOND: u64 = 50;
const SECONDS: u64 = 30;

struct Chain {
    budgets: Vec<RetryBudget>,
    /// Applications hand on what ties a call to its request.
    context: bool,
    grpc: bool,
    at_d: u64,
    dice: Dice,
}

/// An answer of 503, or of gRPC 14.
struct Failed {
    /// It says `weft-spent`.
    spent: bool,
}

impl Chain {
    /// A call by one layer, with its retries. `for_retry`: it is made for a retry.
    fn call(&mut self, layer: usize, now: Instant, for_retry: bool) -> Failed {
        if layer == LAYERS {
            self.at_d += 1;
            return Failed { spent: false };
        }
        let mut retry = RETRY.clone();
        if self.grpc {
            retry.grpc_codes = GrpcCodes::of(&[GrpcCode::Unavailable]);
        }
        let (method, ended) = if self.grpc {
            let code = GrpcCode::Unavailable.number();
            let trailers_only = true;
            (
                Method::POST,
                Ended::Grpc {
                    code,
                    trailers_only,
                },
            )
        } else {
            (Method::GET, Ended::Status(StatusCode::SERVICE_UNAVAILABLE))
        };
        let mut attempted = Attempted {
            method: &method,
            grpc: self.grpc,
            ended,
            retries: 0,
            moved: false,
            body_kept: true,
            retries_exhausted: false,
            late: false,
            requested_wait: RequestedWait::Nothing,
            deadline: Deadline::NONE,
        };
        let mut now = now;
        loop {
            let retried = self.context && (for_retry || attempted.retries > 0);
            let below = self.call(layer + 1, now, retried);
            attempted.retries_exhausted = below.spent || self.context && for_retry;
            let budget = &self.budgets[layer];
            match may_retry(&retry, &attempted, budget, now, 1, self.dice.roll()) {
                Next::Retry { wait } => {
                    now += wait;
                    attempted.retries += 1;
                }
                Next::Pass | Next::Denied(_) => {
                    return Failed {
                        spent: self.context && attempted.exhausts_parent_retries(&retry),
                    };
                }
            }
        }
    }
}

/// Requests at d per request of a's caller.
fn amplification(seed: u64, context: bool, grpc: bool) -> f64 {
    let start = Instant::now();
    let mut chain = Chain {
        budgets: (0..LAYERS).map(|_| RetryBudget::new(start)).collect(),
        context,
        grpc,
        at_d: 0,
        dice: Dice::new(seed),
    };
    // It served well before.
    let mut now = start;
    for _ in 0..PER_SECOND * 10 {
        now += chain.dice.gap(PER_SECOND as f64);
        for budget in &chain.budgets {
            budget.save(now, &RETRY.budget);
        }
    }
    let (from, mut requests) = (now, 0);
    while now < from + secs(SECONDS) {
        now += chain.dice.gap(PER_SECOND as f64);
        requests += 1;
        chain.call(0, now + ms(1), false);
    }
    chain.at_d as f64 / f64::from(requests)
}

#[test]
fn failing_chain_end_gets_8_percent_more_with_context() {
    for grpc in [false, true] {
        let run = |seed| amplification(seed, true, grpc);
        with_every_seed(run, |times| *times > 1.0 && *times <= 1.08);
    }
}

#[test]
fn failing_chain_end_gets_20_percent_more_without_context() {
    for grpc in [false, true] {
        let run = |seed| amplification(seed, false, grpc);
        with_every_seed(run, |times| *times > 1.0 && *times <= 1.20);
    }
}
