//! How long it takes, and whether it jumps.
//!
//! Claims: observe-32, observe-79

use serde_json::json;

use crate::Shown;
use crate::browser::Browser;
use crate::shop;

/// First picture of the page, in the median of some starts.
const FIRST_PAINT_MS: f64 = 200.0;
/// From the beginning of the page to the whole graph of 1000 edges, of the same starts.
const DRAWN_MS: f64 = 2000.0;
const STARTS: usize = 5;
/// Work of the main thread for one frame while it is panned, script and painting, the middle
/// one of all frames.
const FRAME_MS: f64 = 12.0;
const FRAMES: u32 = 90;
/// From a letter of a search among 1000 workloads to the picture that shows what it found.
const FOUND_MS: f64 = 300.0;
/// Of each search, of which the median counts.
const SEARCHES: usize = 5;

// Claims: observability-9
#[tokio::test]
async fn thousand_edge_graph_draws_in_time_with_cheap_frames() {
    let mut shown = Shown::of(&shop::large()).await;
    let browser = &mut shown.browser;
    let (mut painted, mut drawn) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        browser.call("Page.reload", json!({})).await;
        browser
            .wait("document.querySelectorAll('.node').length === 200")
            .await;
        browser
            .wait("performance.getEntriesByName('first-contentful-paint').length")
            .await;
        let first = browser
            .eval("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            .await;
        painted.push(first.as_f64().unwrap());
        let mark = browser
            .eval("performance.getEntriesByName('drawn')[0].startTime")
            .await;
        drawn.push(mark.as_f64().unwrap());
    }
    let (painted, drawn) = (median(painted), median(drawn));
    assert_eq!(browser.count(".way").await, 1000);
    let pan = format!(
        "new Promise((done) => {{ const box = document.querySelector('.scroller'); let left = {FRAMES}; const start = performance.now(); \
         const frame = () => {{ box.scrollBy(left % 2 ? 24 : 16, 12); if (--left) requestAnimationFrame(frame); else done(performance.now() - start); }}; requestAnimationFrame(frame); }})"
    );
    let took = browser.eval(&pan).await.as_f64().unwrap();
    assert!(
        browser
            .eval("document.querySelector('.scroller').scrollTop")
            .await
            .as_f64()
            .unwrap()
            > 300.0,
        "it moved"
    );
    let frame = middle_frame(browser).await;
    // `make eyes` takes it up.
    println!(
        "measured: first paint {painted:.0} ms, drawn {drawn:.0} ms, median frame {frame:.2} ms of work, every {:.1} ms",
        took / f64::from(FRAMES)
    );
    assert!(painted < FIRST_PAINT_MS, "first paint after {painted} ms");
    assert!(drawn < DRAWN_MS, "drawn after {drawn} ms");
    assert!(frame < FRAME_MS, "{frame} ms of work for a frame");
}

/// Pans from the beginning, frame by frame: the milliseconds that the main thread works for
/// one, the middle of all. Until the next one begins it has been painted.
async fn middle_frame(browser: &mut Browser) -> f64 {
    let scroller = "document.querySelector('.scroller')";
    let next = |step: &str| {
        format!(
            "new Promise((done) => requestAnimationFrame(() => {{ {scroller}.{step}; requestAnimationFrame(() => done(0)); }}))"
        )
    };
    browser
        .call("Performance.enable", json!({"timeDomain": "threadTicks"}))
        .await;
    browser.eval(&next("scrollTo(0, 0)")).await;
    let mut frames = Vec::new();
    for number in 0..FRAMES {
        let before = work(browser).await;
        let aside = if number % 2 == 0 { 24 } else { 16 };
        let step = format!("scrollBy({aside}, 12)");
        browser.eval(&next(&step)).await;
        frames.push((work(browser).await - before) * 1000.0);
    }
    median(frames)
}

fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}

/// Seconds that the main thread has worked.
async fn work(browser: &mut Browser) -> f64 {
    let metrics = browser.call("Performance.getMetrics", json!({})).await;
    let all = metrics["metrics"].as_array().unwrap();
    let found = all
        .iter()
        .find(|metric| metric["name"] == "TaskDuration")
        .unwrap();
    found["value"].as_f64().unwrap()
}

// Claims: observability-9
#[tokio::test]
async fn a_thousand_workloads_are_searched_in_time() {
    let mut shown = Shown::of(&shop::wide(1000, 1, 999)).await;
    let browser = &mut shown.browser;
    browser
        .wait("[...document.querySelectorAll('.node')].some((node) => node.textContent.includes('more workloads'))")
        .await;
    let mut each = Vec::new();
    // One that is drawn, some that are folded, all, and none.
    for (text, found) in [
        ("service-000", "1 of 1000"),
        ("service-998", "1 of 1000"),
        ("service-77", "10 of 1000"),
        ("service", "1000 of 1000"),
        ("no such name", "0 of 1000"),
    ] {
        // Two frames: what was found is painted by then.
        let search = |text: &str| {
            format!(
                "new Promise((done) => {{ const box = document.querySelector('#search'); const start = performance.now(); \
                 box.value = '{text}'; box.dispatchEvent(new Event('input', {{ bubbles: true }})); \
                 requestAnimationFrame(() => requestAnimationFrame(() => done([performance.now() - start, document.querySelector('.found').textContent]))); }})"
            )
        };
        let mut took = Vec::new();
        for _ in 0..SEARCHES {
            browser.eval(&search("")).await;
            let elapsed = browser.eval(&search(text)).await;
            assert_eq!(elapsed[1], found, "{text}");
            took.push(elapsed[0].as_f64().unwrap());
        }
        each.push(median(took));
    }
    // `make eyes` takes it up.
    println!("measured: searches among 1000 workloads {each:.0?} ms");
    assert!(
        each.iter().all(|found| *found < FOUND_MS),
        "found after {each:?} ms"
    );
    assert_eq!(browser.faults().await, [""; 0]);
}

// Claims: observability-9
#[tokio::test]
async fn graph_layout_is_independent_of_numbers_and_order() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let positions = "[...document.querySelectorAll('.node')].map((node) => node.querySelector('title').textContent.split(';')[0] + node.getAttribute('transform')).sort().join('\\n')";
    let before = shown.browser.eval(positions).await;
    assert!(before.as_str().unwrap().contains("translate("), "{before}");
    let mut other = shop::shop(590);
    for list in ["nodes", "edges"] {
        other[list].as_array_mut().unwrap().reverse();
    }
    shown.mesh.graph(&other);
    shown.browser.wait("[...document.querySelectorAll('.node .below')].some((below) => below.textContent.includes('9.83/s'))").await;
    assert_eq!(
        shown.browser.eval(positions).await,
        before,
        "while it is watched"
    );
    shown.browser.call("Page.reload", json!({})).await;
    shown
        .browser
        .wait("document.querySelectorAll('.node').length === 7")
        .await;
    assert_eq!(
        shown.browser.eval(positions).await,
        before,
        "and for a user who comes anew"
    );
    // One call more moves what has to move, and that is seen here.
    other["edges"]
        .as_array_mut()
        .unwrap()
        .retain(|edge| edge["id"] != "e1");
    shown.mesh.graph(&other);
    shown
        .browser
        .wait(&format!("{positions} !== {before}"))
        .await;
}
