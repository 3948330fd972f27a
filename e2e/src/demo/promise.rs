//! The demo's promises, and whether the counters keep them.

use super::{
    breakage::Breakage,
    call::Call,
    kept::{Promise, percent},
    names::NAMESPACE,
};

/// A right split is outside of this once in a million looks.
const SIGMAS: f64 = 5.0;

/// Everything that is shown and judged, at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Seconds that the counts span.
    pub seconds: f64,
    /// Calls that a TrafficTarget allows.
    pub allowed: Vec<Call>,
    /// The call that none allows.
    pub refused: Call,
    /// Requests with mTLS, and all.
    pub protected: (f64, f64),
    /// Backends of the TrafficSplit with their weights.
    pub weights: Vec<(String, f64)>,
    /// The instance that was broken on purpose; `None` before.
    pub broken: Option<Breakage>,
    /// Pods that should have been read and could not be, with the reason.
    pub unread: Vec<String>,
}

impl View {
    pub fn promises(&self) -> Vec<Promise> {
        let mut all = vec![
            self.split(),
            self.success(),
            self.encryption(),
            self.refusal(),
        ];
        all.extend(self.broken.iter().flat_map(Breakage::promises));
        if !self.unread.is_empty() {
            all.push(Promise {
                what: "all read",
                seen: self.unread.join("; "),
                kept: false,
            });
        }
        all
    }

    /// The call that the TrafficSplit is about: the one with backends.
    fn split(&self) -> Promise {
        let split = self.allowed.iter().find(|call| !call.backends.is_empty());
        let (all, backends) = split.map_or((0.0, &[][..]), |call| (call.requests, &call.backends));
        let weights: f64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut kept = all > 0.0 && weights > 0.0;
        let (mut known, mut worst, mut shares) = (0.0, 0.0_f64, Vec::new());
        for (backend, weight) in &self.weights {
            let name = format!("{NAMESPACE}/{backend}");
            let got = backends
                .iter()
                .find(|(current, _)| *current == name)
                .map_or(0.0, |(_, got)| *got);
            known += got;
            let share = weight / weights.max(1.0);
            let off = (got - all * share).abs();
            let sigma = (all * share * (1.0 - share)).sqrt();
            kept &= off <= SIGMAS * sigma;
            if sigma > 0.0 {
                worst = worst.max(off / sigma);
            }
            shares.push(format!(
                "{backend} {}, asked {}",
                percent(got, all),
                percent(*weight, weights)
            ));
        }
        // Nothing may go where the split does not point.
        kept &= known == all;
        Promise {
            what: "split",
            seen: format!("{}; {worst:.1} sigma off", shares.join("; ")),
            kept,
        }
    }

    fn success(&self) -> Promise {
        let sum = |count: fn(&Call) -> f64| self.allowed.iter().map(count).sum::<f64>();
        let (good, all) = (sum(|call| call.successes), sum(|call| call.requests));
        Promise {
            what: "success",
            seen: format!("{good} of {all} allowed calls, {}", percent(good, all)),
            kept: good == all && self.allowed.iter().all(|call| call.requests > 0.0),
        }
    }

    fn encryption(&self) -> Promise {
        let (mtls, all) = self.protected;
        Promise {
            what: "mTLS",
            seen: format!(
                "{mtls} of {all} requests at both ends, {}",
                percent(mtls, all)
            ),
            kept: all > 0.0 && mtls == all,
        }
    }

    fn refusal(&self) -> Promise {
        let Call {
            from,
            to,
            requests,
            refused,
            reached,
            refused_by_server,
            ..
        } = &self.refused;
        Promise {
            what: "refused",
            seen: format!(
                "{from} -> {to}: {refused} of {requests} with 403 not-allowed; {reached} reached {to}"
            ),
            kept: *requests > 0.0
                && refused == requests
                && *reached == 0.0
                && *refused_by_server > 0.0,
        }
    }
}
