//! Converts the grants of FaultExperiments.

use std::time::Duration;

use policy::fault::Grant;

use crate::v1;

/// All that there are, for one proxy.
#[must_use]
pub fn grants_message<'a>(grants: impl IntoIterator<Item = &'a Grant>) -> v1::Grants {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let grants = grants.into_iter().map(|grant| v1::Grant {
        experiment: grant.experiment.to_string(),
        seed: grant.seed,
        holds: millis(grant.holds),
        left: millis(grant.left),
    });
    v1::Grants {
        grants: grants.collect(),
    }
}

/// The inverse. Bounds are those of `policy`, which lowers what is beyond them.
#[must_use]
pub fn grants(message: &v1::Grants) -> Vec<Grant> {
    let grants = message.grants.iter().map(|grant| Grant {
        experiment: grant.experiment.as_str().into(),
        seed: grant.seed,
        holds: Duration::from_millis(grant.holds),
        left: Duration::from_millis(grant.left),
    });
    grants.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_survive_the_wire() {
        let all = [
            Grant {
                experiment: "shop/payments-slow".into(),
                seed: u64::MAX,
                holds: Duration::from_secs(3),
                left: Duration::from_millis(299_999),
            },
            Grant {
                experiment: "shop/other".into(),
                seed: 0,
                holds: Duration::ZERO,
                left: Duration::ZERO,
            },
        ];
        assert_eq!(grants(&grants_message(&all)), all);
        assert!(grants(&v1::Grants::default()).is_empty());
    }
}
