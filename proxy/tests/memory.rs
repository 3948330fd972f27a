//! Memory that traffic through two proxies takes. The test has a process of its own, one test at a
//! time, because the process is measured: clients and applications of the tests included, so the
//! true numbers are smaller.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use wire::v1::Protocol;

use support::{Pod, endpoint, endpoints, pair, vip};

// The proxy's own: glibc's keeps more of what was freed, the busier the machine is.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const MIB: usize = 1024 * 1024;
/// One body, far larger than what the proxies may hold of it.
const BODY: usize = 64 * MIB;
const GROWTH: usize = 32 * MIB;
const PART: usize = 64 * 1024;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Watches resident memory while something runs.
async fn peak_growth<T>(work: impl Future<Output = T>) -> (T, usize) {
    let before = resident();
    let mut most = before;
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    loop {
        tokio::select! {
            done = work.as_mut() => return (done, most - before),
            _ = tick.tick() => most = most.max(resident()),
        }
    }
}

/// Reads to the end of a head.
async fn head(stream: &mut TcpStream) {
    let mut last = [0; 4];
    while &last != b"\r\n\r\n" {
        last.rotate_left(1);
        last[3] = stream.read_u8().await.unwrap();
    }
}

async fn serve_on<F>(client: &Pod, server: &Pod, serve: impl Fn(TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, Some("api"))],
    )]);
}

async fn sink(stream: &mut TcpStream) {
    let mut buffer = vec![0; PART];
    let mut left = BODY;
    while left > 0 {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{left} bytes are missing");
        left -= count;
    }
}

async fn pour(stream: &mut TcpStream) {
    let part = vec![b'x'; PART];
    for _ in 0..BODY / PART {
        stream.write_all(&part).await.unwrap();
    }
}

/// The reader begins late, so that the sender could fill whatever has no bound.
#[tokio::test]
async fn large_upload_to_slow_application_is_held_back() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (client, server, _, _) = pair(Protocol::Http1).await;
    serve_on(&client, &server, |mut stream| async move {
        head(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        sink(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let mut stream = client.call(vip()).await;
    let ((), growth) = peak_growth(async {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {BODY}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        pour(&mut stream).await;
        head(&mut stream).await;
    })
    .await;
    println!("64 MiB up: {} KiB more", growth / 1024);
    assert!(growth < GROWTH, "{growth}");
}

#[tokio::test]
async fn large_download_to_slow_caller_is_held_back() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (client, server, _, _) = pair(Protocol::Http1).await;
    serve_on(&client, &server, |mut stream| async move {
        head(&mut stream).await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        pour(&mut stream).await;
    })
    .await;
    let mut stream = client.call(vip()).await;
    let ((), growth) = peak_growth(async {
        let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        stream.write_all(request).await.unwrap();
        head(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        sink(&mut stream).await;
    })
    .await;
    println!("64 MiB down: {} KiB more", growth / 1024);
    assert!(growth < GROWTH, "{growth}");
}

/// Opaque bytes go the other way through the code.
#[tokio::test]
async fn large_opaque_stream_is_held_back_both_ways() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    serve_on(&client, &server, |mut stream| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sink(&mut stream).await;
        pour(&mut stream).await;
    })
    .await;
    let mut stream = client.call(vip()).await;
    let ((), growth) = peak_growth(async {
        pour(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        sink(&mut stream).await;
    })
    .await;
    println!("64 MiB of bytes each way: {} KiB more", growth / 1024);
    assert!(growth < GROWTH, "{growth}");
}

/// More than fit as streams into the connections between two proxies.
const IDLE: usize = 1200;
/// Both proxies, the caller and the application together.
const PER_CONNECTION: usize = 96 * 1024;

#[tokio::test]
async fn idle_connections_are_many_and_small() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // All stay open, so that the second kind does not live on freed memory.
    let mut kept = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Opaque] {
        let (client, server, _, _) = pair(protocol).await;
        serve_on(&client, &server, |mut stream| async move {
            let mut buffer = [0; 64];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            }
        })
        .await;
        let before = resident();
        let mut open = Vec::new();
        for at in 0..IDLE {
            let mut stream = client.call(vip()).await;
            let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
            stream.write_all(request).await.unwrap();
            tokio::time::timeout(Duration::from_secs(5), head(&mut stream))
                .await
                .unwrap_or_else(|_| panic!("{protocol:?}: connection {at} is not served"));
            open.push(stream);
        }
        let each = resident().saturating_sub(before) / IDLE;
        println!("{IDLE} idle connections, {protocol:?}: {each} bytes each");
        assert!(each < PER_CONNECTION, "{protocol:?}: {each}");
        kept.push((open, client, server));
    }
}

/// Callers that do not read, and applications that do not, at once.
const SLOW: usize = 500;
/// Both proxies, the callers and the applications, with all that a thousand calls in
/// flight take beside bytes; four times as much where nothing bounds these.
const SLOW_GROWTH: usize = 320 * MIB;

// Claims: B2, attack-36
#[tokio::test]
async fn hundreds_that_read_nothing_are_held_back() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (client, server, _, _) = pair(Protocol::Http1).await;
    serve_on(&client, &server, |mut stream| async move {
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.unwrap();
        head(&mut stream).await;
        if first == *b"P" {
            // An upload that is never read.
            return std::future::pending().await;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        // Not on each task's own heap: it would count.
        static ZEROS: [u8; PART] = [0; PART];
        while stream.write_all(&ZEROS).await.is_ok() {}
    })
    .await;
    let mut open = Vec::new();
    let ((), growth) = peak_growth(async {
        for _ in 0..SLOW {
            let mut down = client.call(vip()).await;
            let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
            down.write_all(request).await.unwrap();
            head(&mut down).await;
            let mut up = client.call(vip()).await;
            let request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n";
            up.write_all(request).await.unwrap();
            open.push(down);
            open.push(up);
        }
        let part = vec![b'x'; PART];
        for round in 0..40 {
            for stream in open.iter().skip(1).step_by(2) {
                // As much as the socket takes without waiting.
                while matches!(stream.try_write(&part), Ok(1..)) {}
            }
            if round % 2 == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
    .await;
    println!(
        "{SLOW} slow readers and writers: {} KiB more",
        growth / 1024
    );
    assert!(growth < SLOW_GROWTH, "{growth}");
}
