//! What is kept of requests, and what is not.
//!
//! Claims: calls-79

use super::*;

fn request(path: &str, value: &str) -> Request<()> {
    let request = Request::builder().uri(path).header("x-asked", value);
    request.body(()).unwrap()
}

#[test]
fn request_stays_open_until_response_or_caller_cancellation() {
    let log = RequestLog::default();
    let (one, other) = (
        log.begins(&request("/one?a=b", "yes")),
        log.begins(&request("/other", "yes")),
    );
    let seen = log.snapshot("");
    assert_eq!(seen.lost, 0);
    let open = |record: &Record| record.how == RequestState::Open && record.ended.is_none();
    assert!(seen.records.iter().all(open), "{seen:?}");
    assert_eq!(seen.records[0].path, "/one?a=b");
    assert_eq!(seen.records[0].headers["x-asked"], "yes");
    one.answered(StatusCode::ACCEPTED);
    drop(other);
    let seen = log.snapshot("/o").records;
    let ends: Vec<_> = seen.iter().map(|one| (one.how, one.status)).collect();
    assert_eq!(
        ends,
        [
            (RequestState::Answered, Some(202)),
            (RequestState::Cancelled, None)
        ]
    );
    assert!(seen.iter().all(|one| one.ended >= Some(one.began)));
    assert_eq!(log.snapshot("/other").records, [seen[1].clone()]);
}

#[test]
fn late_end_of_forgotten_request_affects_no_other() {
    let log = RequestLog::default();
    let one = log.begins(&request("/one", ""));
    log.clear();
    let _other = log.begins(&request("/other", ""));
    one.answered(StatusCode::OK);
    let seen = log.snapshot("").records;
    assert_eq!((seen.len(), seen[0].how), (1, RequestState::Open));
}

#[test]
fn full_request_log_drops_and_counts_oldest_entries() {
    let log = RequestLog::default();
    let large = "x".repeat(1 << 20);
    for number in 0..10 {
        let path = format!("/{number}");
        log.begins(&request(&path, &large)).answered(StatusCode::OK);
    }
    let seen = log.snapshot("");
    // Eight of them would fill it, and each takes a little more than its header.
    assert_eq!((seen.records.len(), seen.lost), (7, 3));
    assert_eq!(seen.records[0].path, "/3");
    let kept: usize = seen.records.iter().map(size).sum();
    assert!(kept <= ROOM, "{kept}");
    assert!(
        seen.records
            .iter()
            .all(|one| one.how == RequestState::Answered)
    );
    log.clear();
    assert_eq!(log.snapshot(""), LogSnapshot::default());
}
