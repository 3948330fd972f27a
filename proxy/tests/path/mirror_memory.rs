//! Mirroring while the proxy is short of memory.
//!
//! Claims: calls-53

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use weft_proxy::Budget;

use super::answers::{OK, ask};
use super::mirrors::{Shop, restrict_to_read_only};
use crate::support::{Authority, Pod};

/// What the calling proxy may use of memory, and what it uses.
const HEAP: usize = 1 << 30;
static USED: AtomicUsize = AtomicUsize::new(0);
/// In percent: chunks and windows are the smallest, and requests begin and are read.
const TIGHT: usize = 56;

#[tokio::test]
async fn tight_memory_skips_mirroring_but_calls_are_answered() {
    let authority = Authority::new();
    let budget = Budget::measured(64 << 20, HEAP, || USED.load(Relaxed));
    let certs = authority.leaf("web", Duration::from_secs(3600), SystemTime::now());
    let client = Pod::within(budget, authority.roots(), certs, "web").await;
    let shop = Shop::called_by(client, &authority, OK).await;
    restrict_to_read_only(&shop.shadow, &[]);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 1.0).await;

    USED.store(HEAP / 100 * TIGHT, Relaxed);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("full", 1.0).await;

    USED.store(0, Relaxed);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 2.0).await;
    assert_eq!(
        (shop.api.request_count(), shop.next.request_count()),
        (3, 2)
    );
}
