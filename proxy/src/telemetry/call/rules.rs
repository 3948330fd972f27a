//! What is noted of the rules that decided of a call.

use policy::access::Verdict;
use policy::origin::Origin;

use super::{At, Call};

impl Call {
    /// Counts and notes what was decided of a request.
    pub(crate) fn judged(&mut self, verdict: &Verdict<'_>) {
        if matches!(verdict, Verdict::Audit { .. }) {
            self.audited();
        }
        self.decided_by(verdict.by());
        if verdict.is_allowed() {
            self.allowed_by(verdict.by());
        }
    }

    /// Deny would have refused it.
    pub(crate) fn audited(&mut self) {
        // Not settled: a connection may go on to the cell of its port yet.
        self.cell(false).audited();
    }

    /// A rule allows it, where one was needed.
    pub(crate) fn allowed_by(&mut self, rule: Option<&Origin>) {
        let (At::Counters(cell), Some(rule)) = (&self.at, rule) else {
            return;
        };
        cell.allowed_by(rule);
        // It is reported where the call counts in the end, too.
        if cell.key().parties.port() == 0 {
            self.allowed = Some(Box::new(rule.clone()));
        }
    }

    /// Notes what allowed or refused the call, for the access log and the span.
    pub(crate) fn decided_by(&mut self, rule: Option<&Origin>) {
        if let Some(span) = self.span() {
            span.decided_by(rule);
        }
        if let Some(logged) = &mut self.logged {
            logged.rule = rule.cloned();
        }
    }
}
