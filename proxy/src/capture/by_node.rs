//! The pod's side of capture by the node: waits, without any privilege, until the agent of the
//! node has come into this network namespace and written the rules.
//!
//! Without an agent it waits for ever, and the application does not start: a pod that nothing
//! captures would go on in plaintext. The log then names the node, every minute.
//!
//! The agent's word is not trusted. The caller checks the rules with a connection, as it does with
//! those that it wrote itself.

use std::io::{self, Write};
use std::os::unix::net::UnixListener as BoundListener;
use std::time::Duration;

use runtime::env::EnvReader;
use runtime::stop;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::time::{Instant, interval_at, timeout};

use crate::capture::check;
use crate::capture::exchange::{CaptureAnswer, CaptureRequest, LONGEST_LINE, address, line};
use crate::capture::rules::Forwarded;
use crate::capture::settings::Settings;

/// An agent comes within 5 s to every pod, and within 100 ms to one that is new.
const FIRST_REMINDER: Duration = Duration::from_secs(10);
const REMINDERS: Duration = Duration::from_secs(60);
/// The agent answers once the rules are written, which takes milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// One agent connects, or two during its upgrade.
const BACKLOG: i32 = 4;

/// Why the rules were not written by the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ByNodeError {
    #[error("weft-node refused: {0}")]
    Refused(String),
    #[error("ended by {0}")]
    Ended(&'static str),
    #[error("this pod cannot be reached by its node: {0}")]
    Socket(#[from] io::Error),
}

/// Returns once the rules are there, with what became of forwarded packets.
///
/// # Errors
/// When the agent refuses, or when this process is to end.
pub(super) fn wait(settings: &Settings) -> Result<Forwarded, ByNodeError> {
    if check::is_redirected(settings) {
        return Ok(Forwarded::Pass);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(until_captured(settings))
}

async fn until_captured(settings: &Settings) -> Result<Forwarded, ByNodeError> {
    // Process 1 of a container gets no SIGTERM without a handler, and a deleted pod would stay
    // for its whole grace period.
    let mut ended = Box::pin(stop::signal()?);
    let listener = listener()?;
    let node: Option<String> = EnvReader::from_env().optional("WEFT_NODE_NAME");
    let node = node.as_deref().unwrap_or("(unknown)");
    let mut reminders = interval_at(Instant::now() + FIRST_REMINDER, REMINDERS);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                match timeout(ANSWER_WITHIN, answer(stream, settings)).await {
                    Ok(Ok(CaptureAnswer::Captured { forwarded_too: true })) => {
                        return Ok(Forwarded::Redirected);
                    }
                    Ok(Ok(CaptureAnswer::Captured { .. })) => return Ok(Forwarded::Pass),
                    Ok(Ok(CaptureAnswer::Refused { reason })) => {
                        return Err(ByNodeError::Refused(reason));
                    }
                    // It may have been ended, and its successor comes.
                    Ok(Err(error)) => report(&format!("weft-node came and went: {error}")),
                    Err(_) => report("weft-node came and did not answer"),
                }
            }
            _ = reminders.tick() => {
                report(&format!("no weft-node came: does it run on node {node}?"));
            }
            signal = &mut ended => return Err(ByNodeError::Ended(signal)),
        }
    }
}

fn listener() -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address()?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(BoundListener::from(socket))
}

/// Sends the request and returns what the agent answers.
async fn answer(mut stream: UnixStream, settings: &Settings) -> io::Result<CaptureAnswer> {
    stream
        .write_all(&line(&CaptureRequest::of(settings))?)
        .await?;
    let mut text = String::new();
    let most = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    BufReader::new(stream.take(most))
        .read_line(&mut text)
        .await?;
    Ok(serde_json::from_str(&text)?)
}

fn report(line: &str) {
    // No output is left when stderr is closed; the exit code remains.
    let _ = writeln!(io::stderr(), "weft-capture: {line}");
}
