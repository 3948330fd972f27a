//! The HTTP handler of the metrics API.

use std::sync::Arc;
use std::time::SystemTime;

use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    answer::{MetricsAnswer, Sources},
    discovery, openapi,
    query::{GROUP, MetricsPath, Mistake, PARAMETERS, Parameters, VERSIONS},
};
use crate::{
    aggregated::{
        access::{AccessDecision, Gate, refusal},
        bodies::AnswerBudget,
        front_proxy::User,
        parameters::{refuse_repeated, refuse_unknown},
        refusal::Refusal,
        server::{self, Handler},
    },
    inventory::follow::Followed,
    metrics::ApiMetrics,
};

/// Answers the API server.
#[derive(Debug)]
pub(crate) struct Api {
    /// What answers are made of.
    pub sources: Sources,
    /// Whether that is whole.
    pub followed: Followed,
    /// Decides what each user may read.
    pub gate: Gate,
    /// What bodies of answers may take.
    pub answers: AnswerBudget,
    /// Counters.
    pub metrics: ApiMetrics,
}

impl Handler for Api {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn discovery(&self) -> Value {
        discovery::group_body()
    }

    fn openapi_v2(&self) -> Value {
        openapi::v2()
    }

    fn openapi_v3(&self) -> Value {
        openapi::v3_index()
    }

    fn call(
        self: Arc<Self>,
        user: User,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, server::ApiResponse> {
        Box::pin(async move {
            let answer = self.answer(&user, &request).await;
            self.respond(&user, answer)
        })
    }

    fn refused(&self, status: StatusCode) {
        self.metrics.answered(status.as_u16());
    }
}

impl Api {
    async fn answer(
        &self,
        user: &User,
        request: &Request<Incoming>,
    ) -> Result<MetricsAnswer, Refusal> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refusal::not_allowed("metrics can be read and nothing else"));
        }
        let path = request.uri().path();
        if let Some(document) = document(path) {
            return Ok(document.into());
        }
        let rest = path
            .strip_prefix("/apis/")
            .and_then(|path| path.strip_prefix(GROUP));
        let rest = rest
            .and_then(|path| path.strip_prefix('/'))
            .ok_or(Mistake::NotFound)?;
        let path = MetricsPath::parse(rest)?;
        let attributes = path.attributes();
        match self.gate.admits(user, &attributes).await {
            Ok(AccessDecision::Allowed) => {}
            Ok(AccessDecision::Denied(reason)) => {
                let message = refusal(user, &attributes, &reason);
                return Err(Refusal {
                    about: Some((attributes.resource, attributes.name.clone())),
                    ..Refusal::new(StatusCode::FORBIDDEN, "Forbidden", message)
                });
            }
            Err(message) => return Err(Refusal::unavailable(message)),
        }
        let query = request.uri().query().unwrap_or_default();
        refuse_unknown("metrics", query, &PARAMETERS)?;
        refuse_repeated(query, &[])?;
        if form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "watch" && !matches!(&*value, "false" | "0"))
        {
            return Err(Refusal::not_allowed(
                "metrics cannot be watched: read them again",
            ));
        }
        let parameters = Parameters::parse(query, &path)?;
        if !self.followed.is_whole() {
            return Err(Refusal::unavailable(
                "not every kind of object has been listed yet".to_owned(),
            ));
        }
        self.sources
            .answer(&path, &parameters, as_table(request), SystemTime::now())
    }

    fn respond(&self, user: &User, made: Result<MetricsAnswer, Refusal>) -> server::ApiResponse {
        let answer = made.map(|MetricsAnswer { body, warning }| {
            let mut answer = server::whole(StatusCode::OK, body.to_string());
            // RFC 7234: code 299, no agent, the text in quotes. Ours has none.
            let warning = warning.and_then(|text| format!("299 - \"{text}\"").try_into().ok());
            let warning: Option<HeaderValue> = warning;
            if let Some(warning) = warning {
                answer.headers_mut().insert(header::WARNING, warning);
            }
            answer
        });
        let answer = server::given(&self.answers.of(user), answer, GROUP);
        self.metrics.answered(answer.status().as_u16());
        answer
    }
}

/// Documents about the API, which say nothing about the cluster.
fn document(path: &str) -> Option<Value> {
    let v3 = path.strip_prefix("/openapi/v3");
    let group = v3
        .unwrap_or(path)
        .strip_prefix("/apis/")?
        .strip_prefix(GROUP)?;
    let group = group.trim_end_matches('/');
    if group.is_empty() {
        return v3.is_none().then(discovery::group);
    }
    let version = VERSIONS
        .into_iter()
        .find(|version| group.strip_prefix('/') == Some(version))?;
    Some(match v3 {
        Some(_) => openapi::v3(version),
        None => discovery::resources(version),
    })
}

/// Whether the client would rather have a table, as `kubectl get` does.
fn as_table(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    // The first that can be served decides.
    let mut offers = accepted.flat_map(|value| value.split(',')).map(str::trim);
    offers.find_map(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let kind = parts.next()?;
        let table = offer.contains("as=Table");
        let known = offer.contains("v=v1;") || offer.ends_with("v=v1");
        match kind {
            "application/json" if table => known.then_some(true),
            "application/json" | "*/*" | "application/*" => Some(false),
            _ => None,
        }
    }) == Some(true)
}

#[cfg(test)]
mod tests;
