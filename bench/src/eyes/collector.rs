//! A collector of spans that takes all that it gets.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Result;

use crate::control::COLLECTOR;
use crate::namespaces::Namespaces;

/// Starts a collector that takes what is posted and forgets it; how much that was. It lives
/// as long as the process.
pub(super) fn collect(namespaces: &Namespaces) -> Result<Arc<AtomicU64>> {
    let listener = namespaces
        .control
        .within(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, COLLECTOR))?))?;
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counted = Arc::clone(&counted);
            // A client that leaves in the middle of a request needs no response.
            thread::spawn(move || take(stream, &counted).is_ok());
        }
    });
    Ok(taken)
}

fn take(stream: TcpStream, counted: &AtomicU64) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        counted.fetch_add(1, Ordering::Relaxed);
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                      content-length: 0\r\n\r\n";
        reader.get_mut().write_all(answer.as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collector_takes_one_message_after_the_other() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let counted = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&counted);
        let taking = thread::spawn(move || take(stream, &counts));
        for body in ["spans", ""] {
            let length = body.len();
            let head = format!("POST /v1/traces HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            client.write_all((head + body).as_bytes()).unwrap();
            let mut answer = [0; 256];
            assert!(client.read(&mut answer).unwrap() > 0);
            assert!(answer.starts_with(b"HTTP/1.1 200"));
        }
        drop(client);
        taking.join().unwrap().unwrap();
        assert_eq!(counted.load(Ordering::Relaxed), 2);
    }
}
