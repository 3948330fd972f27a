//! Whether a proxy's certificate has missed its renewal.
//!
//! Claims: observe-74

use std::time::{Duration, SystemTime};

use crds::observe::Certificate;
use k8s_openapi::jiff::Timestamp;

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
