//! Validity of certificates: whether a proxy missed the renewal of its own, and how long those of
//! a PEM list last.
//!
//! PEM text of the cluster is parsed apart from the checks that need it: an invalid certificate is
//! reported in a clause that fits into the line of each check.
//!
//! Claims: observe-74

use std::time::{Duration, SystemTime};

use crds::observe::Certificate;
use k8s_openapi::jiff::Timestamp;
use x509_parser::pem::Pem;

/// A proxy requests its next certificate when 40 to 30 % of the life of the last one are left. The
/// renewal is missed if less than one part of so many is.
const PARTS: u32 = 5;
/// The same if the lifetime is not reported, which is 24 h unless the chart sets another.
const SOON: Duration = Duration::from_secs(600);

/// Whether it ends soon for the life that it has; `ttl`: what the controller gives them, as far
/// as that is known.
pub(super) fn is_late(certificate: &Certificate, ttl: Option<Duration>, now: SystemTime) -> bool {
    let Some(ends) = time(&certificate.not_after) else {
        return false;
    };
    let Ok(left) = ends.duration_since(now) else {
        return true;
    };
    let issued = certificate.issued.as_deref().and_then(time);
    let life = issued.and_then(|issued| ends.duration_since(issued).ok());
    // The report of its own controller is more exact than what is known of all controllers.
    let ttl = certificate.ttl_seconds.map(Duration::from_secs).or(ttl);
    let least = match (life, ttl) {
        (Some(life), _) => life / PARTS,
        (None, Some(ttl)) => SOON.min(ttl / PARTS),
        (None, None) => SOON,
    };
    left < least
}

/// A time as the API writes it.
fn time(text: &str) -> Option<SystemTime> {
    let time: Timestamp = text.parse().ok()?;
    Some(time.into())
}

/// A day in seconds.
const DAY: i64 = 86_400;

/// Whole days of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Days {
    /// Negative when it has ended.
    pub(super) left: i64,
    pub(super) life: i64,
}

/// Of the certificate of a PEM list that ends first. An error is a clause about the list.
pub(super) fn days_left(pem: &[u8], now: SystemTime) -> Result<Days, String> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| "this machine's clock is before 1970".to_owned())?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut soonest: Option<(i64, i64)> = None;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| format!("is no PEM: {error}"))?;
        let certificate = block
            .parse_x509()
            .map_err(|error| format!("holds no certificate: {error}"))?;
        let validity = certificate.validity();
        let (end, begin) = (
            validity.not_after.timestamp(),
            validity.not_before.timestamp(),
        );
        soonest = Some(soonest.map_or((end, begin), |soonest| soonest.min((end, begin))));
    }
    let (end, begin) = soonest.ok_or("holds no certificate")?;
    let days_since = |then: i64| end.saturating_sub(then).div_euclid(DAY);
    Ok(Days {
        left: days_since(now),
        life: days_since(begin),
    })
}

/// Whether the first certificate of a PEM list is one of another list. What cannot be read
/// is none.
pub(super) fn first_is_among(list: &[u8], others: &[u8]) -> bool {
    let read = |pem: &[u8]| -> Vec<Vec<u8>> {
        let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
        blocks.map(|block| block.contents).collect()
    };
    let first = read(list).into_iter().next();
    first.is_some_and(|first| read(others).contains(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_renewal_is_measured_by_certificate_lifetime() {
        let (hour, minute) = (Duration::from_secs(3_600), Duration::from_secs(60));
        let ends = "2026-11-02T09:00:00Z";
        for (issued, ttl, late) in [
            (Some("2026-11-01T09:00:00Z"), None, 4 * hour + 48 * minute),
            (Some("2026-11-02T08:45:00Z"), Some(24 * hour), 3 * minute),
            (Some("2026-11-02T08:59:30Z"), None, Duration::from_secs(6)),
            (None, None, 10 * minute),
            (None, Some(24 * hour), 10 * minute),
            (None, Some(15 * minute), 3 * minute),
        ] {
            let certificate = Certificate {
                issued: issued.map(str::to_owned),
                not_after: ends.to_owned(),
                ..Certificate::default()
            };
            let is_late = |left: Duration| is_late(&certificate, ttl, time(ends).unwrap() - left);
            let second = Duration::from_secs(1);
            assert!(!is_late(late), "{certificate:?}");
            assert!(is_late(late - second), "{certificate:?}");
            // As reported with the certificate, which counts first.
            let with_ttl = Certificate {
                ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
                ..certificate
            };
            let is_late = |left: Duration| {
                super::is_late(&with_ttl, Some(4 * minute), time(ends).unwrap() - left)
            };
            if ttl.is_some() {
                assert!(!is_late(late) && is_late(late - second), "{with_ttl:?}");
            }
        }
        let ended = time(ends).unwrap() + hour;
        let certificate = |ends: &str| Certificate {
            not_after: ends.to_owned(),
            ..Certificate::default()
        };
        assert!(is_late(&certificate(ends), None, ended));
        assert!(!is_late(&certificate(""), None, ended), "not reported");
    }
}
