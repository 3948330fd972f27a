//! When certificates end, and whether one list holds another's.
//!
//! Read from the PEM text in the cluster, apart from the checks that need it: an invalid
//! certificate is reported in a clause that fits into any of their lines.

use std::time::SystemTime;

use x509_parser::pem::Pem;

/// A day in seconds.
const DAY: i64 = 86_400;

/// Whole days until the first certificate of a PEM list ends; negative when it has. An
/// error is a clause about the list.
pub(super) fn days_left(pem: &[u8], now: SystemTime) -> Result<i64, String> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| "this machine's clock is before 1970".to_owned())?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut soonest: Option<i64> = None;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| format!("is no PEM: {error}"))?;
        let certificate = block
            .parse_x509()
            .map_err(|error| format!("holds no certificate: {error}"))?;
        let end = certificate.validity().not_after.timestamp();
        soonest = Some(soonest.map_or(end, |soonest| soonest.min(end)));
    }
    let soonest = soonest.ok_or("holds no certificate")?;
    Ok(soonest.saturating_sub(now).div_euclid(DAY))
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
