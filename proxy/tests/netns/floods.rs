//! Floods from outside against the real proxy in its pod, while no process reads its logs. The
//! proxy has no controller, so it refuses every request: any response counts.
//!
//! Claims: attack-69, attack-75, calls-60

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use identity::authority::{ROOT_LIFE, Root};
use socket2::{Domain, Protocol, Socket, Type};

use super::processes::{Group, Proxy};
use super::testbed::{Namespace, Testbed};

/// More than one listener serves.
const FLOOD: usize = 10_050;
const PLAIN: &str = "10.77.0.2:8080";
const OWN_CALL: &str = "10.77.0.1:8000";
const ADMIN: &str = "10.77.0.2:15190";
/// Whatever address the pod has.
const ANY: &str = "0.0.0.0:0";
/// An address of the peer that holds nothing.
const UNUSED: &str = "198.51.100.7:0";

// Claims: B1
#[test]
fn ten_thousand_half_heads_expire_without_blocking_calls() {
    let (testbed, _proxy) = with_proxy("flood", true, None);
    assert_eq!(testbed.peer().ask(UNUSED, PLAIN, "/", 1), "503 503");
    assert_eq!(testbed.pod().ask(ANY, OWN_CALL, "/", 1), "503 503");

    let mut flood = testbed.peer().flood(PLAIN, FLOOD);
    for _ in 0..5 {
        assert_eq!(testbed.peer().ask(UNUSED, PLAIN, "/", 1), "503 503");
        assert_eq!(testbed.pod().ask(ANY, OWN_CALL, "/", 1), "503 503");
    }
    let open: usize = flood.report().parse().unwrap();
    assert_eq!(open, 0, "of {FLOOD} after the time for a head");
    let page = testbed.peer().page(ADMIN, "/metrics");
    assert!(page.contains(r#"limit="slow-head""#), "{page}");
    assert!(!page.contains(r#"limit="outbound-connections""#), "{page}");
}

/// Open files that a container runtime allows at first, in small, and at most.
const FILES: (u32, u32) = (256, 20_000);

// Claims: B1, attack-63
#[test]
fn half_heads_beyond_soft_file_limit_block_no_calls() {
    let (testbed, proxy) = with("files", |pod, bundle| pod.proxy_of_files(bundle, FILES));
    let hard = FILES.1.to_string();
    assert_eq!(proxy.open_files(), [hard.as_str(), hard.as_str()]);
    let _flood = testbed.peer().flood(PLAIN, 600);
    for _ in 0..5 {
        assert_eq!(testbed.peer().ask(UNUSED, PLAIN, "/", 1), "503 503");
        assert_eq!(testbed.pod().ask(ANY, OWN_CALL, "/", 1), "503 503");
    }
    let page = testbed.peer().page(ADMIN, "/metrics");
    assert!(!page.contains(r#"limit="open-files""#), "{page}");
}

/// More than all permits of a listener need, in MiB: no connection is lost for want of memory.
const AMPLE: u64 = 4096;

/// They rest, so newcomers cost them their places, and they answer nothing to that.
// Claims: B1
#[test]
fn ten_thousand_silent_http2_connections_block_no_calls() {
    let group = Group::of_mebibytes("mute", AMPLE);
    let (testbed, _proxy) = with_proxy("mute", true, Some(&group));
    assert_eq!(testbed.peer().ask(UNUSED, PLAIN, "/", 1), "503 503");
    let _mute = testbed.peer().hoard(PLAIN, "mute", FLOOD);
    for _ in 0..5 {
        assert_eq!(testbed.peer().ask(UNUSED, PLAIN, "/", 1), "503 503");
        assert_eq!(testbed.pod().ask(ANY, OWN_CALL, "/", 1), "503 503");
    }
    let page = testbed.peer().page(ADMIN, "/metrics");
    assert!(page.contains(r#"limit="largest-holder""#), "{page}");
    // A lack of memory would end them as well, and hide that they stay when the proxy closes them.
    assert!(!page.contains(r#"limit="memory""#), "{page}");
}

/// What the proxy of this test may hold, in MiB.
const MEMORY: u64 = 64;

#[test]
fn endless_large_heads_neither_kill_proxy_nor_block_callers() {
    let group = Group::of_mebibytes("memory", MEMORY);
    let (testbed, mut proxy) = with_proxy("memory", true, Some(&group));
    for (kind, count) in [("http1", 1500), ("http2", 1500), ("whole", 1500)] {
        let mut hoard = testbed.peer().hoard(PLAIN, kind, count);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            for (of, from, to) in [
                (testbed.peer(), UNUSED, PLAIN),
                (testbed.pod(), ANY, OWN_CALL),
            ] {
                let asked = Instant::now();
                let answer = of.ask(from, to, "/", 1);
                let took = asked.elapsed();
                assert_eq!(
                    answer,
                    "503 503",
                    "{kind}, {to}, {took:?}: {}",
                    lost(&testbed)
                );
            }
        }
        let open: usize = hoard.report().parse().unwrap();
        let peak = group.peak();
        println!("{kind}: {open} of {count} stay, {peak:?} MiB at most");
        assert!(proxy.is_running(), "{kind}: {peak:?} MiB");
        assert_eq!(group.killed(), 0, "{kind}");
    }
    let page = testbed.peer().page(ADMIN, "/metrics");
    assert!(page.contains(r#"limit="memory""#), "{page}");
    drop(proxy);
}

/// What the proxy counted of those that it cut off or refused.
fn lost(testbed: &Testbed) -> String {
    let page = testbed.peer().page(ADMIN, "/metrics");
    let counts = |line: &&str| {
        let reasons = ["limit=", "reason=", "tls_failures"];
        !line.starts_with('#') && reasons.iter().any(|reason| line.contains(reason))
    };
    page.lines().filter(counts).collect::<Vec<_>>().join("\n")
}

// Claims: B10
#[test]
fn unread_log_blocks_no_request_and_counts_losses() {
    let (testbed, proxy) = with_proxy("log", false, None);
    // Some 300 bytes each, into a pipe of 64 KiB.
    assert_eq!(testbed.peer().ask(UNUSED, PLAIN, "/", 5000), "503 503");
    let page = testbed.peer().page(ADMIN, "/metrics");
    let lost = page
        .lines()
        .find_map(|line| line.strip_prefix("weft_log_lines_lost_total "))
        .map(|lost| lost.parse::<u64>().unwrap());
    assert!(lost > Some(0), "{page}");
    // Queued lines are written at the end, with the line that announces the end.
    let said = proxy.end();
    assert!(said.contains("\"stopping\""), "{said}");
}

/// `logs`: a reader takes them.
fn with_proxy(name: &str, logs: bool, group: Option<&Group>) -> (Testbed, Proxy) {
    with(name, |pod, bundle| pod.proxy(bundle, logs, group))
}

/// A proxy that `begin` starts in its pod, with this trust bundle.
fn with(name: &str, begin: impl FnOnce(&Namespace, &str) -> Proxy) -> (Testbed, Proxy) {
    let testbed = Testbed::unoccupied(name);
    testbed.pod().capture(&[]).unwrap();
    let now = SystemTime::now();
    let root = Root::generate(now, ROOT_LIFE).unwrap();
    let bundle = std::env::temp_dir().join(format!("weft-t-{}-{name}.pem", std::process::id()));
    fs::write(&bundle, root.cert_pem()).unwrap();
    let proxy = begin(testbed.pod(), bundle.to_str().unwrap());
    let started = Instant::now();
    while !testbed.peer().page(ADMIN, "/live").ends_with("live\n") {
        assert!(started.elapsed() < Duration::from_secs(20), "no proxy");
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::remove_file(bundle).unwrap();
    (testbed, proxy)
}

fn dial(from: &str, to: &str) -> std::io::Result<TcpStream> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// Role: `from to path count`. Sends requests on one connection, and returns the first and the last
/// status, or the error.
pub(crate) fn ask(arguments: &str) -> String {
    let [from, to, path, count] = arguments.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{arguments}");
    };
    let asked = || -> std::io::Result<String> {
        let mut stream = dial(from, to)?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let (mut first, mut last) = (String::new(), String::new());
        for at in 0..count.parse().unwrap() {
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
            last = answer(&mut answers)?;
            if at == 0 {
                first.clone_from(&last);
            }
        }
        Ok(format!("{first} {last}"))
    };
    asked().unwrap_or_else(|error| error.to_string())
}

/// Reads one response, and returns its status.
fn answer(answers: &mut impl BufRead) -> std::io::Result<String> {
    let (mut status, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if status.is_empty() {
            status = line[9..12].to_owned();
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            std::io::copy(&mut answers.take(length), &mut std::io::sink())?;
            return Ok(status);
        }
    }
}

/// Role: `to path`. The complete response.
pub(crate) fn page(arguments: &str) -> String {
    let (to, path) = arguments.split_once(' ').unwrap();
    let read = || -> std::io::Result<String> {
        let mut stream = dial("10.77.0.1:0", to)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    read().unwrap_or_else(|error| error.to_string())
}

/// Role: `to count`. Opens connections with the first byte of a head on each, prints that, and
/// after twelve seconds prints how many of them are still open.
pub(crate) fn flood(arguments: &str, print: impl Fn(String)) {
    let (to, count) = arguments.split_once(' ').unwrap();
    let mut all = Vec::new();
    for _ in 0..count.parse().unwrap() {
        if let Ok(mut stream) = dial("10.77.0.1:0", to) {
            let _ = stream.write_all(b"G");
            all.push(stream);
        }
    }
    print("ready".to_owned());
    std::thread::sleep(Duration::from_secs(12));
    let mut open = 0;
    for stream in &mut all {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        open +=
            usize::from(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    print(open.to_string());
}

/// Bytes of a value that makes a head nearly as large as heads may be.
const LARGE: usize = 60_000;

/// Longer than any test waits for an answer: what ends by itself makes room for others.
const STAYS: Duration = Duration::from_secs(300);

/// Role: `to kind count`. Opens connections with most of a large head on each, with a complete one
/// over and over, or with the HTTP/2 preface alone, reads nothing, and prints that. After three
/// seconds, of the last kind after [`STAYS`], prints how many of them are still open.
pub(crate) fn hoard(arguments: &str, print: impl Fn(String)) {
    let [to, kind, count] = arguments.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{arguments}");
    };
    let value = "v".repeat(LARGE);
    let bytes = match kind {
        "http1" => format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}").into_bytes(),
        "whole" => format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")
            .repeat(3)
            .into_bytes(),
        "http2" => unfinished_http2(),
        "mute" => http2_preface(),
        other => panic!("no such kind: {other}"),
    };
    let mut all = Vec::new();
    for _ in 0..count.parse().unwrap() {
        if let Ok(mut stream) = dial("10.77.0.1:0", to) {
            stream.set_nonblocking(true).unwrap();
            // As much as is taken without waiting.
            let _ = stream.write_all(&bytes);
            all.push(stream);
        }
    }
    print("ready".to_owned());
    std::thread::sleep(match kind {
        "mute" => STAYS,
        _ => Duration::from_secs(3),
    });
    let mut open = 0;
    for stream in &mut all {
        let mut answers = [0; 64 * 1024];
        open += usize::from(loop {
            match stream.read(&mut answers) {
                Ok(1..) => {}
                Ok(_) => break false,
                Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
    }
    print(open.to_string());
}

/// The HTTP/2 preface and settings.
fn http2_preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes
}

/// The same, and the beginning of a head whose last frame never comes.
fn unfinished_http2() -> Vec<u8> {
    let mut bytes = http2_preface();
    let mut frame = |kind: u8, stream: u8, content: &[u8]| {
        bytes.extend_from_slice(&(content.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, 0, 0, 0, 0, stream]);
        bytes.extend_from_slice(content);
    };
    // GET / of http, then a literal with a larger length than its bytes.
    let mut head = vec![0x82, 0x84, 0x86, 0x00, 1, b'x', 0x7f];
    let mut length = LARGE - 127;
    while length >= 128 {
        head.push((length % 128) as u8 | 128);
        length /= 128;
    }
    head.push(length as u8);
    frame(1, 1, &head);
    for part in vec![b'v'; LARGE - 5000].chunks(16_000) {
        frame(9, 1, part);
    }
    bytes
}
