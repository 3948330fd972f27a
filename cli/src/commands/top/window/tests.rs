//! A scripted tap, second by second.
//!
//! Claims: observe-130

use super::*;
use crate::commands::top::frame::Order;
use crate::commands::top::paths;

/// What makes one request another.
type Edit = fn(&mut TapRequest);

fn at(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// A window of ten seconds whose first stream begins now.
fn started() -> (Window, Instant) {
    let start = Instant::now();
    let mut window = Window::new(Duration::from_secs(10));
    window.begins(start);
    (window, start)
}

fn served(path: &str, ms: f64) -> TapRequest {
    TapRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        route: "cart/read".to_owned(),
        status: 200,
        ms,
        ..TapRequest::default()
    }
}

fn shows(window: &mut Window, now: Instant, request: TapRequest) {
    let line = TapLine {
        request: Some(request),
        ..TapLine::default()
    };
    window.line(&line, now);
}

fn counts(window: &mut Window, now: Instant, (matched, shown, dropped): (u64, u64, u64)) {
    let metadata = TapMetadata {
        proxies: 4,
        taking_part: 3,
        matched,
        shown,
        dropped,
        ..TapMetadata::default()
    };
    let line = TapLine {
        metadata: Some(metadata),
        ..TapLine::default()
    };
    window.line(&line, now);
}

/// The cells of the rows below the head.
fn table(look: &WindowView<'_>, order: Order) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let table = paths::table(look, order, usize::MAX);
    table.write(&mut out, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    let words = |line: &str| -> Vec<String> {
        let words = line.split_whitespace();
        words.map(str::to_owned).collect()
    };
    text.lines().skip(1).map(words).collect()
}

fn paths(look: &WindowView<'_>, order: Order) -> String {
    let rows = table(look, order);
    let paths: Vec<&str> = rows.iter().map(|row| row[8].as_str()).collect();
    paths.join(" ")
}

#[test]
fn path_row_shows_rate_success_and_latency() {
    let (mut window, start) = started();
    for number in 1..=100 {
        shows(
            &mut window,
            at(start, 1),
            served("/items", f64::from(number)),
        );
    }
    for status in [200, 503] {
        let request = TapRequest {
            status,
            ..served("/pay", 2_000.0)
        };
        shows(&mut window, at(start, 2), request);
    }
    let look = window.look(at(start, 10));
    let all = table(&look, Order::Rate);
    assert_eq!(
        all[0],
        [
            "in",
            "GET",
            "100%",
            "10.0",
            "50ms",
            "95ms",
            "99ms",
            "cart/read",
            "/items"
        ]
    );
    assert_eq!(all[1][2..6], ["50.00%", "0.2", "2000ms", "2000ms"]);
    assert_eq!(paths(&look, Order::Rate), "/items /pay");
    assert_eq!(paths(&look, Order::Success), "/pay /items", "the worst");
    assert_eq!(paths(&look, Order::Latency), "/pay /items");
    assert_eq!(paths(&look, Order::Name), "/items /pay");
}

#[test]
fn path_rows_use_four_fields_and_classify_like_proxies() {
    let (mut window, start) = started();
    let cases: [(Edit, u64, u64); 10] = [
        (|_| {}, 1, 0),
        (|request| request.method = "PUT".to_owned(), 1, 0),
        (|request| request.route = String::new(), 1, 0),
        (|request| request.direction = Direction::Outbound, 1, 0),
        // The application's own refusals are its responses.
        (|request| request.status = 404, 1, 0),
        (|request| request.status = 500, 0, 1),
        (|request| request.grpc_status = Some(5), 1, 0),
        (|request| request.grpc_status = Some(14), 0, 1),
        (|request| request.reason = "not-allowed".to_owned(), 0, 1),
        (|request| request.reason = "cancelled".to_owned(), 0, 0),
    ];
    for (number, (change, good, bad)) in cases.into_iter().enumerate() {
        // Those after the first four differ in fields that are not part of the key.
        let path = if number < 4 { 0 } else { number };
        let mut request = served(&format!("/{path}"), 1.0);
        change(&mut request);
        let key = RowKey::of(&request);
        shows(&mut window, at(start, 1), request);
        let look = window.look(at(start, 1));
        let seen = &look.rows[&Some(&key)];
        assert_eq!(
            (seen.requests, seen.served, seen.failed),
            (1, good, bad),
            "{number}: {key:?}"
        );
        assert_eq!(seen.latency().is_some(), good + bad > 0, "{number}");
    }
    assert_eq!(window.look(at(start, 1)).rows.len(), cases.len());
}

#[test]
fn rates_are_scaled_by_tap_losses_counted_per_stream() {
    let (mut window, start) = started();
    for _ in 0..20 {
        shows(&mut window, at(start, 1), served("/items", 1.0));
    }
    counts(&mut window, at(start, 1), (20, 10, 0));
    counts(&mut window, at(start, 2), (80, 15, 3));
    window.begins(at(start, 3));
    counts(&mut window, at(start, 4), (20, 5, 1));
    let look = window.look(at(start, 10));
    let expected = Counts {
        matched: 100,
        shown: 20,
        dropped: 4,
    };
    assert_eq!(look.counts, expected);
    assert_eq!(table(&look, Order::Rate)[0][3], "10.0", "20 of 100 in 10 s");
    assert_eq!(
        paths::summary(&look),
        "20 of 100 requests in 10 s were shown, 4 found no room; rates are scaled to all of \
         them; 3 of 4 proxies take part"
    );
    // The control: where all are shown nothing is scaled.
    let (mut window, start) = started();
    shows(&mut window, at(start, 1), served("/items", 1.0));
    counts(&mut window, at(start, 1), (1, 1, 0));
    let look = window.look(at(start, 10));
    assert_eq!(table(&look, Order::Rate)[0][3], "0.1");
    assert!(!paths::summary(&look).contains("scaled"));
}

#[test]
fn requests_older_than_window_free_their_row() {
    let (mut window, start) = started();
    shows(&mut window, at(start, 1), served("/old", 1.0));
    counts(&mut window, at(start, 1), (50, 1, 0));
    shows(&mut window, at(start, 8), served("/new", 1.0));
    counts(&mut window, at(start, 8), (51, 2, 0));
    assert_eq!(paths(&window.look(at(start, 11)), Order::Name), "/new /old");
    let look = window.look(at(start, 12));
    assert_eq!(paths(&look, Order::Name), "/new");
    assert_eq!((look.counts.matched, look.counts.shown), (1, 1));
    drop(look);
    assert_eq!(window.keys.len(), 1);
    assert!(window.look(at(start, 30)).rows.is_empty());
    assert!(window.keys.is_empty() && window.requests.is_empty() && window.counts.is_empty());
}

#[test]
fn requests_beyond_row_limit_form_one_last_row() {
    let (mut window, start) = started();
    for number in 0..ROWS + 7 {
        shows(
            &mut window,
            at(start, 1),
            served(&format!("/{number}"), 900.0),
        );
    }
    shows(&mut window, at(start, 1), served("/0", 1.0));
    let look = window.look(at(start, 2));
    assert_eq!(look.rows.len(), ROWS + 1);
    assert_eq!(look.rows[&None::<&RowKey>].requests, 7);
    let all: u64 = look.rows.values().map(|seen| seen.requests).sum();
    assert_eq!(all, ROWS as u64 + 8);
    for order in [Order::Rate, Order::Success, Order::Latency, Order::Name] {
        let last = table(&look, order).pop().unwrap();
        assert_eq!(last[8], "(others)", "{order:?}");
    }
    assert!(paths::summary(&look).contains("7 of those shown are in (others)"));
    drop(look);
    // Rows that are free again are used again.
    shows(&mut window, at(start, 20), served("/late", 1.0));
    assert_eq!(paths(&window.look(at(start, 20)), Order::Name), "/late");
}

#[test]
fn held_requests_are_bounded_and_evicted_ones_counted() {
    let (mut window, start) = started();
    for _ in 0..REQUESTS + 5 {
        shows(&mut window, at(start, 1), served("/items", 1.0));
    }
    assert_eq!(window.requests.len(), REQUESTS);
    let look = window.look(at(start, 1));
    assert_eq!((look.rows.len(), look.evicted), (1, 5));
    assert!(paths::summary(&look).contains("5 had to leave too early"));
    drop(look);
    // The names of a row are bounded too, whatever the request has.
    let long = format!("/{}", "\u{fc}".repeat(TEXT));
    shows(&mut window, at(start, 1), served(&long, 1.0));
    let look = window.look(at(start, 1));
    let longest = look.rows.keys().flatten().map(|key| key.path.len());
    assert_eq!(longest.max(), Some(TEXT - 1), "whole characters");
}

#[test]
fn overlong_method_does_not_shift_columns() {
    let (mut window, start) = started();
    let mut made = served("/made", 1.0);
    made.method = "M".repeat(256);
    shows(&mut window, start, made);
    let rows = table(&window.look(at(start, 1)), Order::Rate);
    assert_eq!(rows[0][1], "M".repeat(16), "{rows:?}");
}

#[test]
fn path_reaches_the_terminal_as_text() {
    let (mut window, start) = started();
    shows(
        &mut window,
        at(start, 1),
        served("/a\u{1b}[2J\nforged", 1.0),
    );
    let mut out = Vec::new();
    let look = window.look(at(start, 1));
    let table = paths::table(&look, Order::Rate, usize::MAX);
    table.write(&mut out, true).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 2, "{text:?}");
    assert!(text.contains("/a\\u{1b}[2J\\nforged"), "{text:?}");
}
