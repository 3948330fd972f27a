//! The verdict on a request, and which form of its path is sent on.
//!
//! Applications read paths in different ways. So where rules decide by path, the form that they
//! evaluate is the one that is forwarded ([`crate::path`]). A path in which only the slashes can be
//! read in several ways is forwarded with them as they were sent where that decides nothing: a rule
//! allows every path for this caller, or rules allow each reading. Else it is evaluated as any
//! other path.
//!
//! A path that begins with two slashes can be read as another host than the request names, so no
//! rule that looks at the host lets it be forwarded in this way.
//!
//! The proxy of the called pod, dry runs of rules, and explanations of calls all use this
//! evaluation, so that they cannot differ.

use super::{Access, Caller, EvaluatedTraffic, Rule, Verdict};
use crate::http_match::{HttpMatch, RequestFacts};
use crate::mode::Enforcement;
use crate::path::{BadPath, PathForms};

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVerdict<'a, 'p> {
    pub verdict: Verdict<'a>,
    /// The path that is sent on in place of the one that came; `None`: that one.
    pub replaced: Option<&'p str>,
}

impl Access {
    /// True where requests are judged one by one and refused: there the path that is judged
    /// is the one that is sent on, and a path that cannot be judged is refused. Audit refuses
    /// nothing and changes no path.
    #[must_use]
    pub fn evaluates_requests(&self, port: u16) -> bool {
        self.enforcement == Enforcement::Enforce && self.has_http_rule(port)
    }

    /// Judges one request. Its path is as it was sent, and `path` was made of that.
    ///
    /// # Errors
    /// When rules decide by path, and could see this one in another way than the application.
    pub fn decide_request<'p>(
        &self,
        caller: Caller<'_>,
        port: u16,
        request: &RequestFacts<'_>,
        path: &'p PathForms,
    ) -> Result<RequestVerdict<'_, 'p>, BadPath> {
        let normal = path.normal(request.path);
        if !self.evaluates_requests(port) {
            let evaluated = normal.unwrap_or(request.path);
            return Ok(RequestVerdict {
                verdict: self.evaluate_path(caller, port, request, evaluated),
                replaced: None,
            });
        }
        if path.may_stay()
            && let Some(rule) = self.allows_whatever_path(caller, port, request, path)
        {
            return Ok(RequestVerdict {
                verdict: Verdict::Allow {
                    by: Some(&rule.origin),
                },
                replaced: None,
            });
        }
        if let [sent, others @ ..] = path.readings()
            && !(path.may_name_host() && self.looks_at_host(caller))
        {
            let evaluate = |path: &str| self.evaluate_path(caller, port, request, path);
            let verdict = evaluate(sent);
            if verdict.is_allowed() && others.iter().all(|other| evaluate(other).is_allowed()) {
                return Ok(RequestVerdict {
                    verdict,
                    replaced: path.kept(request.path),
                });
            }
        }
        Ok(RequestVerdict {
            verdict: self.evaluate_path(caller, port, request, normal?),
            replaced: path.changed(),
        })
    }

    fn evaluate_path(
        &self,
        caller: Caller<'_>,
        port: u16,
        request: &RequestFacts<'_>,
        path: &str,
    ) -> Verdict<'_> {
        let facts = RequestFacts {
            method: request.method,
            path,
            query: request.query,
            headers: request.headers,
        };
        self.decide(caller, port, EvaluatedTraffic::Http(&facts))
    }

    /// The first rule that allows the request whatever its path is.
    fn allows_whatever_path(
        &self,
        caller: Caller<'_>,
        port: u16,
        request: &RequestFacts<'_>,
        path: &PathForms,
    ) -> Option<&Rule> {
        let of_host = !path.may_name_host();
        let mut admitting = self.rules.iter().filter(|rule| rule.admits(caller));
        admitting.find(|rule| rule.allows_whatever_path(port, request, of_host))
    }

    fn looks_at_host(&self, caller: Caller<'_>) -> bool {
        let admitting = self.rules.iter().filter(|rule| rule.admits(caller));
        let mut matches = admitting.flat_map(|rule| rule.http.iter().flatten());
        matches.any(HttpMatch::looks_at_host)
    }
}

impl Rule {
    /// `of_host`: also by a match that looks at the host.
    fn allows_whatever_path(&self, port: u16, request: &RequestFacts<'_>, of_host: bool) -> bool {
        let fits = |one: &HttpMatch| {
            (of_host || !one.looks_at_host()) && one.matches_whatever_path(request)
        };
        match &self.http {
            None => self.allows_bytes(port),
            Some(matches) => self.evaluates_requests_on(port) && matches.iter().any(fits),
        }
    }
}

#[cfg(test)]
mod tests;
