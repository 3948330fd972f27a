//! The bodies posted to this application as a trace collector, unchanged. A test decodes them
//! with message definitions that are not this project's own.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, Response, body::Bytes, body::Incoming};

use super::response::{self, Body};

/// Where it is posted, read and forgotten.
pub const PATH: &str = "/v1/traces";
/// Messages that are kept; the oldest goes.
const KEPT: usize = 64;
/// Bytes of one message.
const LONGEST: usize = 1 << 20;

/// See the module header.
#[derive(Debug, Default)]
pub struct Posted(Mutex<VecDeque<Bytes>>);

impl Posted {
    /// `POST` keeps the body, `GET` gives back all of them, each in hexadecimal, `DELETE`
    /// forgets them.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match *request.method() {
            Method::POST => {
                let body = Limited::new(request.into_body(), LONGEST).collect().await;
                match body {
                    Ok(body) => self.keep(body.to_bytes()),
                    Err(error) => {
                        return response::text(StatusCode::BAD_REQUEST, format!("{error}\n"));
                    }
                }
                response::text(StatusCode::OK, "")
            }
            Method::DELETE => {
                self.forget();
                response::text(StatusCode::OK, "")
            }
            _ => response::json(StatusCode::OK, &self.kept()),
        }
    }

    fn keep(&self, message: Bytes) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(message);
    }

    fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn kept(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|message| hex(message)).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_posted_messages_are_returned_until_forgotten() {
        let posted = Posted::default();
        for at in 0..=KEPT {
            posted.keep(vec![u8::try_from(at).unwrap(), 0xff].into());
        }
        let kept = posted.kept();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(
            (kept[0].as_str(), kept[KEPT - 1].as_str()),
            ("01ff", "40ff")
        );
        posted.forget();
        assert!(posted.kept().is_empty());
    }
}
