//! One exchange of HTTP/1.1 after the other on a connection that is kept, for loads that
//! measure and must not wait for anything else.

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Largest answer, head included: the small one has about 150 bytes.
pub(crate) const LONGEST_ANSWER: usize = 4096;

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The connection takes another request.
    pub(crate) keeps: bool,
    /// Length of head and body together.
    whole: usize,
}

/// Reads an answer to the end of its body. `buffer` holds [`LONGEST_ANSWER`] bytes.
///
/// # Errors
/// When the connection ends before, or the answer is none that the bench's servers give.
pub(crate) async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<Head> {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).await?;
        ensure!(
            read > 0,
            "the connection ended, or the answer is longer than expected"
        );
        length += read;
        if let Some(head) = head(&buffer[..length])?
            && length >= head.whole
        {
            return Ok(head);
        }
    }
}

/// `None` while it is not complete.
fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = text
        .strip_prefix("http/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.with_context(|| {
        let first = text.lines().next().unwrap_or_default();
        format!("answered {first}")
    })?;
    let body: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .context("an answer without a length")?
        .trim()
        .parse()?;
    Ok(Some(Head {
        status,
        keeps: !text.contains("\r\nconnection: close"),
        whole: end + 4 + body,
    }))
}

#[cfg(test)]
mod tests {
    use super::{Head, head};

    #[test]
    fn response_is_read_until_end_of_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let read = Head {
            status: 200,
            keeps: true,
            whole: answer.len(),
        };
        assert_eq!(head(answer).unwrap(), Some(read));
        assert_eq!(head(&answer[..20]).unwrap(), None);
        assert!(head(b"SSH-2.0-x\r\nContent-Length: 0\r\n\r\n").is_err());
    }

    #[test]
    fn refusal_is_response_that_may_close_connection() {
        let answer = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nConnection: close\r\n\r\n";
        let read = head(answer).unwrap().unwrap();
        assert_eq!((read.status, read.keeps), (503, false));
    }
}
