//! The subcommand `drain`, the sidecar's preStop hook: commands the running proxy to send its
//! callers elsewhere while it still serves.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use policy::well_known::ADMIN_PORT;

/// The proxy takes note and answers at once; draining itself goes on without us.
const WITHIN: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 16 * 1024;

/// Why the proxy does not drain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DrainError {
    #[error("the proxy's admin port {0} cannot be reached: {1}")]
    Unreachable(SocketAddr, #[source] io::Error),
    #[error("the proxy refused: {0}")]
    Refused(String),
}

/// Posts `/drain` to the admin port at `address` and returns the response.
///
/// # Errors
/// When no proxy answers within 5 s, or when the answer is no success.
pub(crate) fn drain(address: SocketAddr) -> Result<String, DrainError> {
    let answer = post(address).map_err(|source| DrainError::Unreachable(address, source))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        Ok(body.trim_end().to_owned())
    } else {
        let line = head.lines().next().unwrap_or("an empty answer");
        Err(DrainError::Refused(format!("{line} {}", body.trim_end())))
    }
}

fn post(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    // One request without a body needs no HTTP library, and `connection: close`
    // makes the end of the stream the end of the answer.
    let request = format!(
        "POST /drain HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// [`drain`] for `main`: success means that the proxy has accepted.
pub fn command() -> ExitCode {
    let result = drain((Ipv4Addr::LOCALHOST, ADMIN_PORT).into());
    let (code, line) = match result {
        Ok(printed) => (ExitCode::SUCCESS, printed),
        Err(error) => (ExitCode::FAILURE, error.to_string()),
    };
    // No output is left when stderr is closed; the exit code remains.
    let _ = writeln!(io::stderr(), "weft-drain: {line}");
    code
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request with this text and returns the request.
    fn one_answer(answer: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, server)
    }

    #[test]
    fn acceptance_is_a_success_with_the_proxys_words() {
        let (address, server) =
            one_answer("HTTP/1.1 202 Accepted\r\ncontent-length: 9\r\n\r\ndraining\n");
        assert_eq!(drain(address).unwrap(), "draining");
        assert!(
            server
                .join()
                .unwrap()
                .starts_with("POST /drain HTTP/1.1\r\n")
        );
    }

    #[test]
    fn refusal_and_silence_are_failures() {
        let (address, _server) = one_answer("HTTP/1.1 404 Not Found\r\n\r\nno such page\n");
        let error = drain(address).unwrap_err().to_string();
        assert!(
            error.contains("404") && error.contains("no such page"),
            "{error}"
        );

        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(matches!(drain(closed), Err(DrainError::Unreachable(..))));
    }
}
