//! Takes quota shares from the controller, and reports what is offered of the limits that they are of.

use policy::limit::offered::Offered;
use tokio::time::Instant;
use wire::v1;

use crate::config::shares::{limit_of, share_of};
use crate::config::store::Store;

impl Store {
    /// Takes shares of limits that all pods of a Service keep together, and returns which. Of one
    /// that others may have by now only the first request passes until it arrives again.
    pub fn share(&self, message: v1::Shares) -> v1::SharesTaken {
        let (shares, guard) = self.inspect(|now| (now.shares.clone(), now.guard.clone()));
        if message.forget {
            shares.forget();
        }
        let mut taken = Vec::new();
        for share in message.shares {
            let Some((port, limit)) = share.of.as_ref().and_then(limit_of) else {
                continue;
            };
            if !shares.set(port, limit, share.thousandths) {
                self.telemetry.metrics.limit("shares");
                continue;
            }
            taken.push(v1::ShareTaken {
                of: share.of,
                term: share.term,
                number: share.number,
            });
        }
        if let Some(guard) = guard {
            guard.share(&shares, Instant::now().into_std());
        }
        v1::SharesTaken { taken }
    }

    /// Whether the own pod keeps a limit together with others.
    pub(crate) fn has_shared_limits(&self) -> bool {
        self.inspect(|now| {
            let guard = now.guard.as_ref();
            guard.is_some_and(|guard| guard.has_any_shared())
        })
    }

    /// What is offered to the own pod of such limits, as far as that is known.
    pub(crate) fn offered(&self) -> Vec<(v1::ShareOf, Offered)> {
        let Some(guard) = self.inspect(|now| now.guard.clone()) else {
            return Vec::new();
        };
        let all = guard.offered(Instant::now().into_std()).into_iter();
        all.map(|(port, limit, offered)| (share_of(port, &limit), offered))
            .collect()
    }
}
