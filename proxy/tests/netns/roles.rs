//! Roles of the test binary when it starts itself inside a namespace: serve ports, or dial one. It
//! prints its results as lines of JSON on stdout.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weft_proxy::{original_dst, tune_closely};

/// Environment variable that names the role; its arguments are in `ARGUMENTS`.
pub(crate) const ROLE: &str = "WEFT_TEST_ROLE";
pub(crate) const ARGUMENTS: &str = "WEFT_TEST_ARGUMENTS";

/// A handshake inside one machine; a rule that loses packets shows as this.
const WITHIN: Duration = Duration::from_secs(5);

/// The responder of a connection, and the original address from its kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Met {
    pub(crate) name: String,
    /// `None` when the connection was not redirected.
    pub(crate) original: Option<String>,
}

pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let arguments = std::env::var(ARGUMENTS).unwrap_or_default();
    match role.as_str() {
        "serve" => serve(&arguments),
        "connect" => connect(&arguments),
        "hold" => hold(&arguments),
        "watch" => watch(&arguments),
        "ask" => print(&crate::floods::ask(&arguments)),
        "page" => print(&crate::floods::page(&arguments)),
        "hoard" => crate::floods::hoard(&arguments, |line| print(&line)),
        "sidecar" => crate::sidecars::serve(&arguments, |line| print(&line)),
        "egress" => crate::egress::serve(|line| print(&line)),
        "flood" => crate::floods::flood(&arguments, |line| print(&line)),
        other => panic!("no such role: {other}"),
    }
}

fn print(line: &impl Serialize) {
    // The test harness has written half a line before us.
    println!("\n{}", serde_json::to_string(line).unwrap());
}

/// `name=address name=address ...`: greets every connection with a [`Met`] and
/// then returns every line.
fn serve(arguments: &str) {
    let mut threads = Vec::new();
    for argument in arguments.split_whitespace() {
        let (name, address) = argument.split_once('=').unwrap();
        let listener =
            TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let name = name.to_owned();
        threads.push(thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, name) = (stream.unwrap(), name.clone());
                thread::spawn(move || greet(stream, name));
            }
        }));
    }
    print(&"ready");
    for thread in threads {
        thread.join().unwrap();
    }
}

fn greet(mut stream: TcpStream, name: String) {
    let original = original_dst(&stream)
        .ok()
        .map(|address| address.to_string());
    let greeting = serde_json::to_string(&Met { name, original }).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut line = greeting;
    while writeln!(stream, "{line}").is_ok() {
        match lines.next() {
            Some(Ok(next)) => line = next,
            _ => return,
        }
    }
}

fn dial(to: &str) -> Result<(TcpStream, BufReader<TcpStream>, Met), String> {
    let to: SocketAddr = to.parse().unwrap();
    let stream = TcpStream::connect_timeout(&to, WITHIN).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .map_err(|error| error.to_string())?;
    let met = serde_json::from_str(&line).map_err(|error| format!("{error}: {line:?}"))?;
    Ok((stream, reader, met))
}

fn connect(to: &str) {
    print(&dial(to).map(|(_, _, met)| met));
}

/// Dials, then sends every line of stdin and prints what comes back.
fn hold(to: &str) {
    let dialled = dial(to);
    print(&dialled.as_ref().map(|(_, _, met)| met));
    let Ok((mut stream, mut reader, _)) = dialled else {
        return;
    };
    for line in std::io::stdin().lines() {
        writeln!(stream, "{}", line.unwrap()).unwrap();
        let mut back = String::new();
        reader.read_line(&mut back).unwrap();
        print(&back.trim_end());
    }
}

/// `address question`: dials, waits for a line of stdin, sends the question, and prints after how
/// many seconds the kernel gave the connection up.
fn watch(arguments: &str) {
    let (to, question) = arguments.split_once(' ').unwrap();
    let (mut stream, _reader, _) = dial(to).unwrap();
    tune_closely(&stream);
    stream.set_read_timeout(Some(4 * WITHIN)).unwrap();
    print(&"ready");
    std::io::stdin().lines().next().unwrap().unwrap();
    let started = Instant::now();
    stream.write_all(question.as_bytes()).unwrap();
    let read = match stream.read(&mut [0; 64]) {
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
            Ok(started.elapsed().as_secs())
        }
        other => Err(format!("{other:?} after {:?}", started.elapsed())),
    };
    print(&read);
}
