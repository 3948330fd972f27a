//! The log of the HTTP port: each request with its headers, when it started, and when and how
//! it ended. From it tests read what an application received and whether it was cancelled.
//!
//! `GET /requests` of the conformance ports returns all of it, `GET /requests?only=/path` the
//! requests with that prefix, and `DELETE /requests` clears it. When the log is full the oldest
//! are dropped, and their number is reported with the others.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use hyper::Request;
use serde::{Deserialize, Serialize};

use super::response;

/// Where it is read and forgotten.
pub const PATH: &str = "/requests";
/// Bytes of all records: some 10 000 requests of a chain.
const ROOM: usize = 8 << 20;
/// What a record takes beside its text, and what each of its headers does.
const RECORD: usize = 256;
const HEADER: usize = 64;

/// See the module header.
#[derive(Debug, Default)]
pub struct RequestLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Record>,
    /// The number of the first of them; each has the next number.
    first: u64,
    bytes: usize,
    lost: u64,
}

/// The JSON of `GET /requests`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSnapshot {
    /// In the order in which they began.
    pub records: Vec<Record>,
    /// Records for which there was no room, whatever their path.
    pub lost: u64,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub method: String,
    /// With the query.
    pub path: String,
    /// All of its headers; several values of one name are joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// When its head was there, in microseconds since 1970.
    pub began: u64,
    /// When its answer was there, or its caller gone.
    pub ended: Option<u64>,
    pub how: RequestState,
    /// Of its answer.
    pub status: Option<u16>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Not at all yet.
    Open,
    /// Its answer was handed to its connection.
    Answered,
    /// Its caller left before that.
    Cancelled,
}

/// A request that is being answered. Dropped before its answer is there, it was cancelled.
#[derive(Debug)]
pub struct Arrived<'a> {
    log: &'a RequestLog,
    number: u64,
}

impl RequestLog {
    /// A request is here.
    pub fn begins<B>(&self, request: &Request<B>) -> Arrived<'_> {
        let number = self.lock().push(Record {
            method: request.method().to_string(),
            path: request
                .uri()
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            headers: response::headers(request.headers()),
            began: now(),
            ended: None,
            how: RequestState::Open,
            status: None,
        });
        Arrived { log: self, number }
    }

    /// Those whose path begins so.
    pub fn snapshot(&self, only: &str) -> LogSnapshot {
        let kept = self.lock();
        let records = kept.records.iter();
        LogSnapshot {
            records: records
                .filter(|record| record.path.starts_with(only))
                .cloned()
                .collect(),
            lost: kept.lost,
        }
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        let mut kept = self.lock();
        let first = kept.first + kept.records.len() as u64;
        *kept = Kept {
            first,
            ..Kept::default()
        };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, record: Record) -> u64 {
        let number = self.first + self.records.len() as u64;
        self.bytes += size(&record);
        self.records.push_back(record);
        while self.bytes > ROOM
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= size(&oldest);
            self.first += 1;
            self.lost += 1;
        }
        number
    }

    /// What has ended already, or is not there any more, stays as it is.
    fn end(&mut self, number: u64, how: RequestState, status: Option<u16>) {
        let index = number.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let record = index.and_then(|index| self.records.get_mut(index));
        if let Some(record) = record.filter(|record| record.how == RequestState::Open) {
            record.ended = Some(now());
            record.how = how;
            record.status = status;
        }
    }
}

impl Arrived<'_> {
    /// Its answer is there.
    pub fn answered(self, status: StatusCode) {
        let status = Some(status.as_u16());
        self.log
            .lock()
            .end(self.number, RequestState::Answered, status);
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.log
            .lock()
            .end(self.number, RequestState::Cancelled, None);
    }
}

fn size(record: &Record) -> usize {
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| HEADER + name.len() + value.len());
    RECORD + record.method.len() + record.path.len() + headers.sum::<usize>()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
