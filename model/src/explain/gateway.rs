//! Explains a client's call to a Gateway: which listener takes it, which rule of the listener's
//! routes decides, and what becomes of the call behind it.
//!
//! Behind the rule the call is one of the Gateway's account to a Service, and is explained as that of
//! any other caller; routes of that Service are for its own callers.

use std::sync::Arc;

use crds::observe::{ExplanationSpec, From};
use gateway_api::gateway::resource_name;
use policy::gateway::ListenerProtocol;
use policy::name::Kind;
use policy::reason::Reason;
use policy::route::{Backend, Forward, Rule, shares};

use super::answer::{Explained, unknown};
use super::call::{Called, Caller, Request, named};
use super::client_call::ClientCall;
use super::entered::{Asked, Entered, Shows, closed, enter, unserved, why, words};
use super::outcome::Question;
use super::outside::Outside;
use super::question::{BadQuestion, CallerView, Callers, Owner};
use super::route::BackendRoute;
use crate::model::{Audience, Model};
use crate::problem::Problems;
use crate::world::{self, ObjectKey};

impl Model {
    /// What becomes of a client's call to a Gateway, and why. `problems` are those of this Model.
    ///
    /// # Errors
    /// When the query has no meaning. That there is no such Gateway is a result.
    pub fn explain_at_gateway(
        &self,
        spec: &ExplanationSpec,
        (problems, shows): (&Problems, Shows<'_>),
        owner: Owner<'_>,
        callers: Callers<'_>,
    ) -> Result<Explained, BadQuestion> {
        let key = named("to.name", &spec.to.namespace, &spec.to.name)?;
        if !spec.from.outside {
            let reason = "a Gateway looks at no identity of its clients: ask for one outside";
            return Err(BadQuestion::new("from", reason));
        }
        if spec.to.port.is_some() {
            let reason = "the URL in spec.path has the port: leave this one out";
            return Err(BadQuestion::new("to.port", reason));
        }
        let call = ClientCall::read(spec)?;
        if let Some(why) = unserved(&self.index, &key) {
            return Ok(unknown(why));
        }
        let asked = Asked {
            key: &key,
            report: problems.reports.get(&world::object(Kind::Gateway, &key)),
            problems,
            shows,
        };
        let Some(compiled) = self.index.gateways.0.get(&key) else {
            let why = asked.report.map(|report| why(&report.accepted));
            let why = why.unwrap_or_default();
            return Ok(asked.ended(closed(format!("the Gateway is not served: {why}"))));
        };
        let pods = self.gateway_pods(&key);
        if pods.is_empty() {
            return Ok(asked.ended(closed(format!(
                "no pod of the Gateway runs: see kubectl -n {} describe deployment {}",
                key.namespace,
                resource_name(&key.name)
            ))));
        }
        let entered = enter(&asked, compiled, &call);
        let decides = entered.as_ref().ok();
        let decides = decides.map(|entered| entered.rule.origin.clone());
        let mut explained = match entered {
            Err(ended) => asked.ended(ended),
            Ok(entered) => self.behind((&asked, &call), &entered, owner, callers)?,
        };
        explained.deciding_pods.extend(pods);
        let origins = compiled.origins.iter().filter(|(object, _)| {
            object.kind == Kind::Gateway || decides.as_ref() == Some(&world::named(object))
        });
        explained.origins.extend(origins.cloned());
        Ok(explained)
    }

    /// What becomes of a call behind the rule that it fits.
    fn behind(
        &self,
        (asked, call): (&Asked<'_>, &ClientCall),
        entered: &Entered<'_>,
        owner: Owner<'_>,
        callers: Callers<'_>,
    ) -> Result<Explained, BadQuestion> {
        let rule = entered.rule;
        let account = account(asked.key);
        // What distinguishes the Gateway's pods differs by what is called.
        let found = |to: &Called| {
            let found = Caller::find(self, (&account, CallerView::Known), to, owner)?;
            Ok::<Vec<Caller>, BadQuestion>(found.unwrap_or_default())
        };
        let nothing = || Called::External(Outside::default());
        let mut goes = Vec::new();
        for (backend, share) in shares(backends(rule)) {
            let to = Called::Service(ObjectKey::from(&backend.service), backend.port);
            goes.push((found(&to)?, Some((backend, share))));
        }
        if goes.is_empty() {
            goes.push((found(&nothing())?, None));
        }
        let spec = ExplanationSpec {
            from: From {
                kind: Kind::Gateway.word().to_owned(),
                name: asked.key.name.to_string(),
                ..account.clone()
            },
            ..ExplanationSpec::default()
        };
        let question = Question {
            spec: &spec,
            request: call.request_at(entered.listener.protocol)?,
            from: found(&nothing())?,
            to: nothing(),
            view: CallerView::Known,
        };
        let mut outcomes = Vec::new();
        for (from, to) in &goes {
            for caller in from {
                let ways = match to {
                    Some(to) => self.to_backend(caller, rule, *to, &question.request),
                    None => self.nowhere(caller, rule, asked.key, &question.request),
                };
                outcomes.extend(ways.into_iter().map(|way| {
                    let rule = Some(entered.explained.clone());
                    let way = BackendRoute { rule, ..way };
                    self.follow(caller, &question.request, way)
                }));
            }
        }
        let explained = self.put_together(&question, &outcomes, owner, callers);
        Ok(entered.explained(asked, call, explained))
    }

    /// The ways to one backend of a rule, as any client of its Service goes there. Its splits share
    /// out what it gets, and see the request as the rule's edits leave it.
    fn to_backend(
        &self,
        caller: &Caller,
        rule: &Rule<Forward>,
        (backend, share): (&Backend, f64),
        request: &Request,
    ) -> Vec<BackendRoute> {
        let index = &*self.index;
        let edited = || {
            let actions = backend.actions.as_deref();
            actions.map(|actions| request.edited(actions))
        };
        let service = ObjectKey::from(&backend.service);
        let ways = if backend.invalid {
            Vec::new()
        } else {
            let sent = edited();
            let request = sent.as_ref().unwrap_or(request);
            let to = (&service, backend.port);
            BackendRoute::of_service(index, caller, to, request, Audience::Direct)
        };
        if ways.is_empty() {
            let way = BackendRoute::taken(index, caller, request, (backend, share));
            let split = Some(rule.origin.clone());
            return vec![BackendRoute { split, ..way }];
        }
        let ways = ways.into_iter().map(|way| BackendRoute {
            share: way.share * share,
            split: way.split.clone().or_else(|| Some(rule.origin.clone())),
            sent: edited(),
            ..way
        });
        ways.collect()
    }

    /// The end of calls whose rule leads to no backend.
    fn nowhere(
        &self,
        caller: &Caller,
        rule: &Rule<Forward>,
        gateway: &ObjectKey,
        request: &Request,
    ) -> Vec<BackendRoute> {
        // There is no Service that was called.
        let root = Forward::Refuse(Reason::InvalidRoute);
        let then = match &rule.then {
            Forward::Root => &root,
            then => then,
        };
        let decided = (then, Some(&rule.origin));
        let ways = BackendRoute::forwarded(&self.index, caller, gateway, request, decided);
        ways.unwrap_or_default()
    }
}

impl Entered<'_> {
    /// What is said of a call behind the Gateway, with what is said of it there.
    fn explained(&self, asked: &Asked<'_>, call: &ClientCall, behind: Explained) -> Explained {
        let takes = match self.listener.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => "takes the request",
            ListenerProtocol::Tls => "relays the connection by its server name",
            ListenerProtocol::Tcp => "relays the connection",
        };
        let mut text = format!("{} {takes}", words(self.listener));
        if let Some(path) = call.normalised() {
            text = format!("{text}, as of path {path}");
        }
        let mut explained = behind;
        explained.status.steps.insert(0, asked.step(text));
        explained.status.owner = asked.key.namespace.to_string();
        explained.status.rule = Some(self.explained.clone());
        let backends = backends(self.rule).iter();
        let behind = backends.map(|backend| &backend.service.namespace);
        let namespaces = std::iter::once(self.rule.origin.namespace()).chain(behind);
        explained.namespaces.extend(namespaces.map(Arc::clone));
        explained
    }
}

/// The account of a Gateway's pods.
fn account(gateway: &ObjectKey) -> From {
    From {
        kind: "ServiceAccount".to_owned(),
        namespace: gateway.namespace.to_string(),
        name: resource_name(&gateway.name),
        outside: false,
    }
}

fn backends(rule: &Rule<Forward>) -> &[Backend] {
    match &rule.then {
        Forward::Split(backends) => backends,
        Forward::Root | Forward::Refuse(_) | Forward::Redirect(_) => &[],
    }
}
