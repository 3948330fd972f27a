//! Explains for each rule why it does not allow a call: the first of its parts that fails.
//!
//! The verdict is [`Access`]'s own; this file decides nothing. Parts are checked in the order in
//! which people narrow a rule down: source, limit, port, path, method, header. Of several matches
//! the one that fails latest is reported, because that is the one its author meant.

use crate::access::{Access, Caller, EvaluatedTraffic, Rule, Verdict};
use crate::http_match::{HttpMatch, MatchPart, RequestFacts};
use crate::path::{BadPath, PathForms};

/// What fails in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The caller is none of its sources.
    Source,
    /// The port lies beyond what the rule is limited to.
    Limit,
    /// The port is none of its TCPRoutes'.
    Port,
    /// It has no routes that could allow anything.
    Routes,
    /// It describes requests, and these bytes are none.
    Bytes,
    /// The path fits no match; of this one it was the first to fail.
    Path(&'a HttpMatch),
    /// The path fits this match, the method does not.
    Method(&'a HttpMatch),
    /// Path and method fit this match, the header of this name does not.
    Header(&'a HttpMatch, &'a str),
    /// The rest fits this match, the parameter of this name in the query does not.
    Query(&'a HttpMatch, &'a str),
    /// Its matches cannot be compiled.
    Unusable(&'a HttpMatch),
}

impl Part<'_> {
    /// How far the call came.
    const fn rank(self) -> u8 {
        match self {
            Self::Source => 0,
            Self::Limit => 1,
            Self::Port => 2,
            Self::Routes | Self::Bytes => 3,
            Self::Unusable(_) => 4,
            Self::Path(_) => 5,
            Self::Method(_) => 6,
            Self::Header(..) => 7,
            Self::Query(..) => 8,
        }
    }
}

/// One rule and what it makes of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleAnswer<'a> {
    pub rule: &'a Rule,
    /// `None`: it allows the call.
    pub fails: Option<Part<'a>>,
}

/// The verdict, and every rule's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons<'a> {
    pub verdict: Verdict<'a>,
    /// In the order of the rules.
    pub rules: Vec<RuleAnswer<'a>>,
}

impl Access {
    /// Judges as [`Access::decide`] does, and returns why. For people: it looks at every rule,
    /// whatever was decided.
    #[must_use]
    pub fn explain(
        &self,
        caller: Caller<'_>,
        port: u16,
        traffic: EvaluatedTraffic<'_>,
    ) -> Reasons<'_> {
        let verdict = self.decide(caller, port, traffic);
        let rules = self.rules.iter().map(|rule| RuleAnswer {
            rule,
            fails: rule.fails(caller, port, traffic),
        });
        Reasons {
            verdict,
            rules: rules.collect(),
        }
    }

    /// Judges as [`Access::decide_request`] does, and returns why.
    ///
    /// # Errors
    /// As there.
    pub fn explain_request(
        &self,
        caller: Caller<'_>,
        port: u16,
        request: &RequestFacts<'_>,
        path: &PathForms,
    ) -> Result<Reasons<'_>, BadPath> {
        let decided = self.decide_request(caller, port, request, path)?;
        let sent = path.readings().first().map_or(request.path, String::as_str);
        let facts = RequestFacts {
            method: request.method,
            path: path.normal(request.path).unwrap_or(sent),
            query: request.query,
            headers: request.headers,
        };
        let reasons = self.explain(caller, port, EvaluatedTraffic::Http(&facts));
        Ok(Reasons {
            verdict: decided.verdict,
            ..reasons
        })
    }
}

impl Rule {
    fn fails(
        &self,
        caller: Caller<'_>,
        port: u16,
        traffic: EvaluatedTraffic<'_>,
    ) -> Option<Part<'_>> {
        if !self.admits(caller) {
            return Some(Part::Source);
        }
        if !self.reaches(port) {
            return Some(Part::Limit);
        }
        match (traffic, &self.http, &self.ports) {
            (_, None, None) => Some(Part::Routes),
            (_, _, Some(ports)) if !ports.contains(port) => Some(Part::Port),
            (EvaluatedTraffic::Bytes, Some(_), _) | (EvaluatedTraffic::Opaque, Some(_), None) => {
                Some(Part::Bytes)
            }
            (EvaluatedTraffic::Bytes | EvaluatedTraffic::Opaque, _, Some(_))
            | (EvaluatedTraffic::Http(_), None, Some(_)) => None,
            (EvaluatedTraffic::Http(request), Some(matches), _) => nearest(matches, request),
        }
    }
}

/// What fails in the match that comes furthest; `None` if one fits.
fn nearest<'a>(matches: &'a [HttpMatch], request: &RequestFacts<'_>) -> Option<Part<'a>> {
    let mut nearest = Part::Routes;
    for one in matches {
        let part = match one.fails(request)? {
            MatchPart::Unusable => Part::Unusable(one),
            MatchPart::Path => Part::Path(one),
            MatchPart::Method => Part::Method(one),
            MatchPart::Header(name) => Part::Header(one, name),
            MatchPart::Query(name) => Part::Query(one, name),
        };
        if part.rank() > nearest.rank() {
            nearest = part;
        }
    }
    Some(nearest)
}

#[cfg(test)]
mod tests;
