//! `weft identity revoke`: makes a Revocation, by which the whole mesh refuses identities.
//!
//! The object is judged before it is written, as the webhook would, and whether older ones leave it
//! a place: in an incident there may be no time for a second try. What a controller makes of it is
//! waited for, since it refuses what would end the mesh itself.

use std::time::{Duration, SystemTime};

use crds::label_syntax::is_dns_subdomain;
use crds::smi::validation::{Cluster as Judged, Severity};
use crds::smi::{ACCEPTED, RESOLVED_REFS};
use crds::validate;
use crds::weft::{GROUP, Revocation, RevocationSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::foreseen::{self, Foreseen};
use crate::cluster::Cluster;
use crate::cluster::names::ResourceKind;
use crate::commands::automation;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::kinds;

/// What is made, in messages and in the object.
const KIND: &str = kinds::REVOCATION;
/// How long a controller may take to judge what is made, and between two looks.
const JUDGED_WITHIN: Duration = Duration::from_secs(5);
const EACH: Duration = Duration::from_millis(250);
/// How long the older ones may take to be read: a controller counts them, too, and seconds count.
const FORESEEN_WITHIN: Duration = Duration::from_secs(2);
/// What is typed for subjects that are no objects with pods.
const NODES: [&str; 3] = ["no", "node", "nodes"];
const CERTIFICATES: [&str; 2] = ["cert", "certificate"];
const ISSUER: &str = "issuer";
/// What may be revoked, for a message.
const FORMS: &str =
    "name sa/NAME, pod/NAME, node/NAME, certificate/SERIAL or issuer/FINGERPRINT to revoke";

/// A Revocation that is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revoke<'a> {
    /// Such as `sa/web`.
    pub(super) what: &'a str,
    pub(super) reason: &'a str,
    /// Of the object; none: one of the time.
    pub(super) name: Option<&'a str>,
    /// Certificates of before now alone.
    pub(super) keep_healthy: bool,
    /// The API server judges it, and nothing is made.
    pub(super) dry_run: bool,
}

impl Revoke<'_> {
    /// # Errors
    /// When it names nothing that can be revoked.
    pub(super) fn must_be_readable(&self) -> Result<(), Failure> {
        if let Some(name) = self.name.filter(|name| !is_dns_subdomain(name)) {
            return Err(Failure::usage(format!(
                "--id {name}: is no name of an object: lower case letters, digits, '-' and '.'"
            )));
        }
        self.spec("default", None).map(drop)
    }

    /// Makes the object.
    pub(super) async fn run(
        &self,
        cluster: &Cluster,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let now = Timestamp::try_from(cluster.now(now)).map_err(|_| {
            Failure::unknown("the cluster's clock has a time that cannot be written")
        })?;
        let before = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let before = self.keep_healthy.then_some(before);
        let spec = self.spec(cluster.namespace(), before.as_deref())?;
        let subject = spec["subjects"][0].clone();
        let spec = RevocationSpec::deserialize(&spec)
            .map_err(|error| Failure::unknown(format!("{KIND}: {error}")))?;
        let name = match self.name {
            Some(name) => name.to_owned(),
            None => now.strftime("revoke-%Y-%m-%d-%H%M%S").to_string(),
        };
        let all: Api<Revocation> = Api::all(cluster.client());
        let parameters = PostParams {
            dry_run: self.dry_run,
            field_manager: automation::written_by_user().field_manager,
        };
        let object = Revocation::new(&name, spec);
        let what = format!("{KIND} {name}");
        let room = foreseen::room(&cluster.within(FORESEEN_WITHIN), &subject).await;
        if let Foreseen::Refused(why) = &room {
            return self.foreseen_refused(&what, why, console);
        }
        let made = cluster.try_call(&what, all.create(&parameters, &object));
        made.await.map_err(|refusal| refused(&what, refusal))?;
        if self.dry_run {
            let foreseen = [foreseen::of(cluster, &subject).await, room];
            return self.foresee(&what, foreseen, console);
        }
        let judged = judged(cluster, &all, (&what, &name)).await;
        self.report((&what, &name), judged, console)
    }

    /// What a controller would make of the object, as far as it can be foreseen.
    fn foresee(
        &self,
        what: &str,
        foreseen: [Foreseen; 2],
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let mut unknown = Vec::new();
        for one in foreseen {
            match one {
                Foreseen::Refused(why) => return self.foreseen_refused(what, &why, console),
                Foreseen::Unknown(why) => unknown.push(why),
                Foreseen::Accepted => {}
            }
        }
        let (named, which) = (self.what, self.which());
        console.word(&format!(
            "{what} would revoke {which} of {named}, and was not made"
        ))?;
        for why in unknown {
            console.word(&format!("not judged: {why}"))?;
        }
        Ok(Conclusion::Yes)
    }

    fn foreseen_refused(
        &self,
        what: &str,
        why: &str,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let named = self.what;
        console.word(&format!(
            "{what} would be refused and was not made: {named} {why}"
        ))?;
        Ok(Conclusion::No)
    }

    /// What a controller made of the object.
    fn report(
        &self,
        (what, name): (&str, &str),
        judged: Result<Revocation, String>,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let (subject, which) = (self.what, self.which());
        let judged = match judged {
            Ok(judged) => judged,
            Err(why) => {
                console.word(&format!(
                    "{what} is made; whether it revokes {which} of {subject} is not known: {why}; \
                     kubectl get rev {name} shows it, and kubectl delete rev {name} lifts it"
                ))?;
                return Ok(Conclusion::Unknown);
            }
        };
        if let Some(refused) = failed(&judged, ACCEPTED) {
            console.word(&format!(
                "{what} is refused, and revokes nothing: {}: {}; kubectl delete rev {name} removes \
                 it",
                refused.reason, refused.message
            ))?;
            return Ok(Conclusion::No);
        }
        console.word(&format!(
            "{what} revokes {which} of {subject}; kubectl get rev {name} shows how many proxies \
             refuse it, and kubectl delete rev {name} lifts it"
        ))?;
        if let Some(unresolved) = failed(&judged, RESOLVED_REFS) {
            console.word(&format!("{}: {}", unresolved.reason, unresolved.message))?;
        }
        if self.keeps_tokens() {
            console.word(
                "what has the token of a pod gets new certificates: delete the pod too, unless the \
                 key alone is known to others",
            )?;
        }
        Ok(Conclusion::Yes)
    }

    fn which(&self) -> &'static str {
        match self.keep_healthy {
            true => "the certificates of before now",
            false => "all certificates",
        }
    }

    /// Whether pods get new certificates for their tokens.
    fn keeps_tokens(&self) -> bool {
        let kind = self.what.split_once('/').map_or("", |(kind, _)| kind);
        self.keep_healthy || kind == ISSUER || CERTIFICATES.contains(&kind)
    }

    /// The spec, judged.
    fn spec(&self, namespace: &str, before: Option<&str>) -> Result<Value, Failure> {
        let mut spec = json!({"reason": self.reason, "subjects": [self.subject(namespace)?]});
        if let Some(before) = before {
            spec["issuedBefore"] = json!(before);
        }
        let judged = Judged::default();
        let mistakes = validate::object(GROUP, KIND, Some(&spec), &judged.around(""));
        let mut mistakes = mistakes.unwrap_or_default().into_iter();
        match mistakes.find(|mistake| mistake.severity == Severity::Refuse) {
            None => Ok(spec),
            Some(wrong) => Err(Failure::usage(format!("{}: {}", wrong.field, wrong.text))),
        }
    }

    fn subject(&self, namespace: &str) -> Result<Value, Failure> {
        let what = self.what;
        let Some((kind, name)) = what.split_once('/').filter(|(_, name)| !name.is_empty()) else {
            return Err(Failure::usage(format!("{what}: {FORMS}")));
        };
        let is = |known: ResourceKind| known.typed().contains(&kind);
        if is(ResourceKind::ServiceAccount) {
            return Ok(json!({"serviceAccount": {"namespace": namespace, "name": name}}));
        }
        if is(ResourceKind::Pod) {
            return Ok(json!({"pod": {"namespace": namespace, "name": name}}));
        }
        if NODES.contains(&kind) {
            return Ok(json!({"node": {"name": name}}));
        }
        if CERTIFICATES.contains(&kind) {
            // As `weft identity` shows it, or as the controller logs it.
            return Ok(json!({"certificate": {"serial": name.replace(':', "")}}));
        }
        if kind == ISSUER {
            let fingerprint = match name.starts_with("sha256:") {
                true => name.to_owned(),
                false => format!("sha256:{name}"),
            };
            return Ok(json!({"issuer": {"fingerprint": fingerprint}}));
        }
        Err(Failure::usage(format!("{what}: {FORMS}")))
    }
}

/// The object once a controller has judged it, or why it is not known what any makes of it.
async fn judged(
    cluster: &Cluster,
    all: &Api<Revocation>,
    (what, name): (&str, &str),
) -> Result<Revocation, String> {
    let until = Instant::now() + JUDGED_WITHIN;
    loop {
        match cluster.try_call(what, all.get(name)).await {
            Ok(object) if condition(&object, ACCEPTED).is_some() => return Ok(object),
            Err(refusal) if !refusal.may_pass_again() => {
                return Err(refusal.into_failure().to_string());
            }
            // It is not judged yet, or an API server is replaced meanwhile.
            Ok(_) | Err(_) => {}
        }
        if Instant::now() + EACH > until {
            let within = JUDGED_WITHIN.as_secs();
            return Err(format!(
                "no controller has judged it within {within} s (weft check)"
            ));
        }
        sleep(EACH).await;
    }
}

fn failed<'a>(object: &'a Revocation, kind: &str) -> Option<&'a Condition> {
    condition(object, kind).filter(|one| one.status == "False")
}

fn condition<'a>(object: &'a Revocation, kind: &str) -> Option<&'a Condition> {
    let mut all = object.status.as_ref()?.conditions.iter();
    all.find(|one| one.type_ == kind)
}

fn refused(what: &str, refusal: crate::cluster::Refusal) -> Failure {
    match refusal.code() {
        Some(409) => Failure::usage(format!(
            "{what} is there already: say another --id, or leave it out"
        )),
        Some(404) => Failure::unknown(format!(
            "{what}: this kind is not served; Weft is not installed in this cluster, or is older \
             than this command (`weft version` says which one is there)"
        )),
        _ => refusal.into_failure(),
    }
}
