//! Streamed responses: lines as they come.

use http_body_util::BodyExt as _;
use kube::client::Body;

use super::{Cluster, Refusal};
use crate::failure::Failure;

/// Bytes of one line. A request with all its headers has a tenth of that.
const LONGEST: usize = 256 * 1024;

/// The rest of a response.
#[derive(Debug)]
pub(crate) struct Lines {
    what: String,
    body: Body,
    buffer: Vec<u8>,
}

impl Cluster {
    /// Begins to read what the API server streams at `path`, as it comes.
    ///
    /// # Errors
    /// As [`Self::try_ask`]. Only the begin has a time limit.
    pub(crate) async fn stream(&self, what: &str, path: &str) -> Result<Body, Refusal> {
        let request = match http::Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return Err(Refusal::of(what, kube::Error::HttpError(error))),
        };
        self.begin(what, &request).await
    }

    /// The same, line by line.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub(crate) async fn lines(&self, what: &str, path: &str) -> Result<Lines, Refusal> {
        let body = self.stream(what, path).await?;
        Ok(Lines::of(what, body))
    }

    /// The same of any request.
    ///
    /// # Errors
    /// As [`Self::try_ask`]. Only the begin has a time limit.
    pub(crate) async fn lines_of(
        &self,
        what: &str,
        request: http::Request<Vec<u8>>,
    ) -> Result<Lines, Refusal> {
        let body = self.begin(what, &request).await?;
        Ok(Lines::of(what, body))
    }

    async fn begin(&self, what: &str, request: &http::Request<Vec<u8>>) -> Result<Body, Refusal> {
        let call = || self.body_of(request.clone().map(Body::from));
        self.ask_again(what, call).await
    }
}

impl Lines {
    fn of(what: &str, body: Body) -> Self {
        Self {
            what: what.to_owned(),
            body,
            buffer: Vec::new(),
        }
    }

    /// The next line, without its end; `None` after the last.
    ///
    /// # Errors
    /// When the connection breaks, or a line is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            let broken = |why: &str| Failure::unknown(format!("{}: {why}", self.what));
            if self.buffer.len() > LONGEST {
                return Err(broken("a line is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(broken(&error.to_string())),
            }
        }
    }
}
