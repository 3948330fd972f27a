//! Intervals that come again, because the clock that numbers them was set back.

use super::*;

#[test]
fn interval_repeated_after_clock_reset_takes_new_report() {
    for (is_set, expected) in [(true, 4 + 2), (false, 4 + 9)] {
        let reports = Reports::new(ReportMetrics::default());
        reports.take(&pod("a"), report(1, 5, &[4]), true, now());
        reports.take(&pod("a"), report(1, 2, &[9]), true, now());
        if is_set {
            reports.forget_from(NOW / INTERVAL - 2);
        }
        reports.take(&pod("a"), report(1, 2, &[2]), true, now());
        assert_eq!(calls(&reports), expected, "set: {is_set}");
    }
}
