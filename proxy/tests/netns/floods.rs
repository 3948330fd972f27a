//! The real proxy in its pod, flooded from outside and with nobody who reads its
//! logs. No controller tells it anything, so every request is refused: an answer
//! is an answer.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use identity::authority::{ROOT_LIFE, Root};
use socket2::{Domain, Protocol, Socket, Type};

use super::place::{Place, Proxy};

/// More than one listener serves.
const FLOOD: usize = 10_050;
const PLAIN: &str = "10.77.0.2:8080";
const OWN_CALL: &str = "10.77.0.1:8000";
const ADMIN: &str = "10.77.0.2:15190";
/// An address of the peer that holds nothing.
const QUIET: &str = "198.51.100.7:0";

#[test]
fn ten_thousand_half_heads_cut_neither_callers_nor_the_pods_own_calls_off_and_end_in_time() {
    let (place, _proxy) = with_proxy("flood", true);
    assert_eq!(place.peer().ask(QUIET, PLAIN, "/", 1), "403 403");
    assert_eq!(place.pod().ask("0.0.0.0:0", OWN_CALL, "/", 1), "503 503");

    let mut flood = place.peer().flood(PLAIN, FLOOD);
    for _ in 0..5 {
        assert_eq!(place.peer().ask(QUIET, PLAIN, "/", 1), "403 403");
        assert_eq!(place.pod().ask("0.0.0.0:0", OWN_CALL, "/", 1), "503 503");
    }
    let open: usize = flood.tell().parse().unwrap();
    assert_eq!(open, 0, "of {FLOOD} after the time for a head");
    let page = place.peer().page(ADMIN, "/metrics");
    assert!(page.contains(r#"limit="slow-head""#), "{page}");
    assert!(!page.contains(r#"limit="outbound-connections""#), "{page}");
}

#[test]
fn a_log_that_nobody_reads_stops_no_request_and_its_losses_are_counted() {
    let (place, proxy) = with_proxy("log", false);
    // Some 300 bytes each, into a pipe of 64 KiB.
    assert_eq!(place.peer().ask(QUIET, PLAIN, "/", 5000), "403 403");
    let page = place.peer().page(ADMIN, "/metrics");
    let lost = page
        .lines()
        .find_map(|line| line.strip_prefix("weft_log_lines_lost_total "))
        .map(|lost| lost.parse::<u64>().unwrap());
    assert!(lost > Some(0), "{page}");
    // What is queued is written at the end, with what says that it ends.
    let said = proxy.end();
    assert!(said.contains("\"stopping\""), "{said}");
}

/// `logs`: somebody reads them.
fn with_proxy(name: &str, logs: bool) -> (Place, Proxy) {
    let place = Place::unoccupied(name);
    place.pod().capture(&[]).unwrap();
    let now = SystemTime::now();
    let root = Root::generate(now, ROOT_LIFE).unwrap();
    let bundle = std::env::temp_dir().join(format!("weft-t-{}-{name}.pem", std::process::id()));
    fs::write(&bundle, root.cert_pem()).unwrap();
    let proxy = place.pod().proxy(bundle.to_str().unwrap(), logs);
    let begun = Instant::now();
    while !place.peer().page(ADMIN, "/live").ends_with("live\n") {
        assert!(begun.elapsed() < Duration::from_secs(20), "no proxy");
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::remove_file(bundle).unwrap();
    (place, proxy)
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

/// Role: `from to path count`. Asks on one connection, and tells the first and
/// the last status, or what went wrong.
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

/// Reads one answer, and tells its status.
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

/// Role: `to path`. The whole answer.
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

/// Role: `to count`. Opens connections with the first byte of a head on each, says
/// so, and after twelve seconds tells how many of them are still open.
pub(crate) fn flood(arguments: &str, say: impl Fn(String)) {
    let (to, count) = arguments.split_once(' ').unwrap();
    let mut all = Vec::new();
    for _ in 0..count.parse().unwrap() {
        if let Ok(mut stream) = dial("10.77.0.1:0", to) {
            let _ = stream.write_all(b"G");
            all.push(stream);
        }
    }
    say("ready".to_owned());
    std::thread::sleep(Duration::from_secs(12));
    let mut open = 0;
    for stream in &mut all {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        open +=
            usize::from(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    say(open.to_string());
}
