//! What this instance saw: who called, and how its own calls ended.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use hyper::Request;
use serde::{Deserialize, Serialize};

use super::client::WholeResponse;

/// A test clears the lists long before; the oldest entry goes.
const MAX_RETAINED: usize = 10_000;
/// What this instance saw since the last `DELETE /metrics`.
#[derive(Debug, Default)]
pub struct Calls(Mutex<EchoMetrics>);

/// The JSON of `GET /metrics`; names are the conformance suite's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EchoMetrics {
    /// Names of callers, from their header `ServiceName`.
    pub req_received: Vec<String>,
    /// Own calls answered below 400.
    pub resp_succeeded: Vec<Call>,
    /// Own calls answered with 400 or more.
    pub resp_failed: Vec<Call>,
    /// Own calls without an answer; not in the original.
    #[serde(default)]
    pub transport_errors: Vec<Call>,
}

/// One own call as the suite reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    #[serde(rename = "URL")]
    pub url: String,
    #[serde(rename = "Method")]
    pub method: String,
    #[serde(rename = "Headers")]
    pub headers: BTreeMap<String, String>,
}

impl Calls {
    /// A copy of what was seen.
    pub fn seen(&self) -> EchoMetrics {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Forgets all of it.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = EchoMetrics::default();
    }

    pub fn received<B>(&self, request: &Request<B>) {
        let caller = request
            .headers()
            .get("servicename")
            .and_then(|name| name.to_str().ok())
            .unwrap_or("Unidentified");
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        push(&mut seen.req_received, caller.to_owned());
    }

    pub fn made(&self, call: Call, answer: Option<&WholeResponse>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.map(|answer| answer.status.as_u16()) {
            Some(200..400) => push(&mut seen.resp_succeeded, call),
            Some(_) => push(&mut seen.resp_failed, call),
            None => push(&mut seen.transport_errors, call),
        }
    }
}

fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.len() >= MAX_RETAINED {
        list.remove(0);
    }
    list.push(entry);
}
