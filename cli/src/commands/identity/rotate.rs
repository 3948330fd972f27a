//! `weft identity rotate`: requests a rotation of the certificate authority and shows how far it is.
//!
//! The request stands in the object of the authority, so the right to patch that is enough, and the
//! controller carries it out whether or not this command still waits.

use std::time::{Duration, SystemTime};

use crds::weft::{
    AUTHORITY, AuthorityPhase, CERTIFICATE_AUTHORITIES, CertificateAuthority, EXPIRING, GROUP,
    ROTATING, RotatingReason, RotationReason, RotationScope, USABLE, VERSION,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::Patch;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Refusal};
use crate::commands::automation;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::output::number;

/// Between two looks; the controller writes each phase at once.
const EACH: Duration = Duration::from_secs(2);
/// What is read and written, in messages.
const WHAT: &str = "CertificateAuthority weft";

/// A rotation that is requested.
#[derive(Clone, Debug)]
pub(super) struct Rotate {
    pub(super) compromise: bool,
    /// None: one of the time.
    pub(super) id: Option<String>,
    /// How long its end is waited for.
    pub(super) wait: Option<Duration>,
}

impl Rotate {
    /// Writes the request, and waits for its end where that is wanted.
    pub(super) async fn run(
        &self,
        cluster: &Cluster,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let before = read(cluster).await.map_err(unserved)?;
        let id = match &self.id {
            Some(id) => id.clone(),
            None => id_of(cluster.now(now))?,
        };
        let asked = before.spec.rotation.as_ref();
        if asked.is_some_and(|asked| asked.id == id) {
            return Err(Failure::usage(format!(
                "{WHAT}: rotation {id} was requested before, and none runs twice; say another --id, \
                 or leave it out"
            )));
        }
        let reason = match self.compromise {
            true => RotationReason::Compromise,
            false => RotationReason::Planned,
        };
        let rotation = json!({
            "id": id,
            "scope": RotationScope::Root.as_str(),
            "reason": reason.as_str(),
        });
        let patch = Patch::Merge(json!({"spec": {"rotation": rotation}}));
        let all: Api<CertificateAuthority> = Api::all(cluster.client());
        let parameters = automation::written_by_user();
        let patching = all.patch(AUTHORITY, &parameters, &patch);
        let patched = cluster.try_call(WHAT, patching).await.map_err(unserved)?;
        let generation = patched.metadata.generation.unwrap_or_default();
        let reason = reason.as_str();
        let Some(wait) = self.wait else {
            console.word(&format!(
                "{WHAT} gets the request for rotation {id} ({reason}); weft identity --ca shows \
                 how far it is"
            ))?;
            return Ok(Conclusion::Yes);
        };
        console.word(&format!("{WHAT}: rotation {id} ({reason}) is requested"))?;
        let roots = before.status.map(|status| status.roots);
        let replaced = roots.and_then(|roots| Some(roots.into_iter().next()?.fingerprint));
        let awaited = Awaited {
            id: &id,
            generation,
            replaced: replaced.as_deref(),
        };
        ended(cluster, awaited, wait, console).await
    }
}

/// A rotation whose end is waited for.
#[derive(Clone, Copy, Debug)]
struct Awaited<'a> {
    id: &'a str,
    /// Of the object that requests it.
    generation: i64,
    /// The root that was active before, as far as it was known.
    replaced: Option<&'a str>,
}

impl Awaited<'_> {
    /// Whether another rotation came after its end: the root that it replaced is gone. One that takes
    /// its place before the end keeps that root.
    fn is_followed(self, authority: &CertificateAuthority) -> bool {
        let Some(status) = &authority.status else {
            return false;
        };
        let mut roots = status.roots.iter();
        let is_gone = match self.replaced {
            Some(replaced) => roots.all(|root| root.fingerprint != replaced),
            None => true,
        };
        let last = status.rotation.as_ref();
        let is_other = last.is_some_and(|last| last.id.as_deref() != Some(self.id));
        is_other && is_gone && !status.roots.is_empty()
    }
}

/// One look after the other until the rotation has ended, with a line for each that differs.
async fn ended(
    cluster: &Cluster,
    awaited: Awaited<'_>,
    wait: Duration,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let Awaited { id, generation, .. } = awaited;
    let began = Instant::now();
    let (mut last, mut was_taken) = (String::new(), false);
    loop {
        match read(cluster).await {
            Ok(authority) => {
                was_taken |= last_rotation(&authority) == Some(id);
                let rotating = condition(&authority, ROTATING).filter(|rotating| {
                    rotating.observed_generation.unwrap_or_default() >= generation
                });
                if let Some(over) = rotating.filter(|rotating| rotating.status == "False") {
                    return concluded(&authority, over, (id, was_taken), console);
                }
                if was_taken && awaited.is_followed(&authority) {
                    console.word(&format!("rotation {id} has ended, and another one runs"))?;
                    return Ok(Conclusion::Yes);
                }
                let line = standing(&authority);
                if lasting(&line) != last {
                    console.word(&line)?;
                    lasting(&line).clone_into(&mut last);
                }
            }
            // An API server may be replaced meanwhile.
            Err(refusal) if refusal.may_pass_again() => {}
            Err(refusal) => return Err(unserved(refusal)),
        }
        if began.elapsed().saturating_add(EACH) > wait {
            return Err(Failure::unknown(format!(
                "rotation {id} has not ended within {}, and goes on by itself; weft identity --ca \
                 shows what it waits for",
                number::written(wait)
            )));
        }
        sleep(EACH).await;
    }
}

/// How a rotation came out that runs no more. `was_taken`: the controller has named it.
fn concluded(
    authority: &CertificateAuthority,
    over: &Condition,
    (id, was_taken): (&str, bool),
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let is_done = over.reason == RotatingReason::Done.as_str();
    if is_done && was_taken {
        let message = with_reason(format!("rotation {id} has ended"), &over.message);
        console.word(&message)?;
        return Ok(Conclusion::Yes);
    }
    let why = match last_rotation(authority) {
        Some(other) if is_done => format!(
            "the last rotation is {other}; one had the id {id} before, or another request came \
             after it"
        ),
        _ => over.message.clone(),
    };
    console.word(&with_reason(format!("rotation {id} does not run"), &why))?;
    Ok(Conclusion::No)
}

fn with_reason(said: String, why: &str) -> String {
    match why {
        "" => said,
        why => format!("{said}: {why}"),
    }
}

/// Id of the rotation that runs, or ran last.
fn last_rotation(authority: &CertificateAuthority) -> Option<&str> {
    let status = authority.status.as_ref()?;
    status.rotation.as_ref()?.id.as_deref()
}

/// What stands beside the certificates of the authority: its phase with what that waits for, and
/// what is wrong. Empty where the authority has no object.
pub(super) async fn notes(cluster: &Cluster) -> Vec<String> {
    match read(cluster).await {
        Ok(authority) => {
            let mut notes = vec![standing(&authority)];
            notes.extend(own_issuers(&authority));
            for (kind, wrong) in [(USABLE, "False"), (EXPIRING, "True")] {
                let found = condition(&authority, kind).filter(|one| one.status == wrong);
                notes.extend(found.map(|one| format!("{}: {}", one.reason, one.message)));
            }
            notes
        }
        // An older Weft has no such kind.
        Err(refusal) if refusal.is_missing() => Vec::new(),
        Err(refusal) => vec![refusal.into_failure().to_string()],
    }
}

/// What signs, as controllers report it; `None` where they do not, or the user may not see it.
pub(super) async fn issuers(cluster: &Cluster) -> Option<String> {
    let authority = read(cluster).await.ok()?;
    let named = named_issuers(&authority);
    (!named.is_empty()).then(|| named.join(", "))
}

/// `controllers sign with 2 issuers of their own: sha256:... until 2026-11-21T10:00:00Z, ...`
fn own_issuers(authority: &CertificateAuthority) -> Option<String> {
    let named = named_issuers(authority);
    let count = named.len();
    (count > 1).then(|| {
        let named = named.join(", ");
        format!("controllers sign with {count} issuers of their own: {named}")
    })
}

/// `sha256:... until 2026-11-21T10:00:00Z`, of each issuer.
fn named_issuers(authority: &CertificateAuthority) -> Vec<String> {
    let issuers = authority.status.iter().flat_map(|status| &status.issuers);
    let named = issuers.map(|issuer| {
        let name = issuer.authority.as_ref().unwrap_or(&issuer.fingerprint);
        let end = issuer.not_after.as_deref().unwrap_or("a time not known");
        format!("{name} until {end}")
    });
    named.collect()
}

/// `phase Activating of rotation audit-2026, 412/412 proxies trust the first root and 398/412 have
/// renewed: waits for shop/web-0: no stream for 14m`
fn standing(authority: &CertificateAuthority) -> String {
    let status = authority.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "not known".to_owned());
    let mut line = format!("phase {phase}");
    if phase != AuthorityPhase::Steady.as_str() {
        let id = status.rotation.and_then(|rotation| rotation.id);
        line.extend(id.map(|id| format!(" of rotation {id}")));
        if let (Some(trusting), Some(renewed)) = (status.trusting, status.renewed) {
            line.push_str(&format!(
                ", {trusting} proxies trust the first root and {renewed} have renewed"
            ));
        }
    }
    with_reason(line, &status.summary.unwrap_or_default())
}

/// The same up to the name of what is waited for: times that count down behind it are no news.
fn lasting(line: &str) -> &str {
    let ends = line.match_indices(": ").nth(1);
    ends.map_or(line, |(at, _)| &line[..at])
}

fn condition<'a>(authority: &'a CertificateAuthority, kind: &str) -> Option<&'a Condition> {
    let mut all = authority.status.as_ref()?.conditions.iter();
    all.find(|one| one.type_ == kind)
}

pub(super) async fn read(cluster: &Cluster) -> Result<CertificateAuthority, Refusal> {
    let path = format!("/apis/{GROUP}/{VERSION}/{CERTIFICATE_AUTHORITIES}/{AUTHORITY}");
    cluster.try_read(WHAT, &path).await
}

/// The failure of a command that needs the object.
fn unserved(refusal: Refusal) -> Failure {
    if !refusal.is_missing() {
        return refusal.into_failure();
    }
    Failure::unknown(match refusal.missing() {
        Some(_) => format!(
            "{WHAT} is missing, and the controller makes it anew within seconds; `weft check` says \
             why it does not"
        ),
        None => format!(
            "{WHAT}: this kind is not served; Weft is not installed in this cluster, or is older \
             than this command (`weft version` says which one is there)"
        ),
    })
}

/// An id that no rotation had: the time, to the second.
fn id_of(now: SystemTime) -> Result<String, Failure> {
    let now = Timestamp::try_from(now)
        .map_err(|_| Failure::unknown("the cluster's clock has a time that cannot be written"))?;
    Ok(now.strftime("%Y-%m-%d-%H%M%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::lasting;

    #[test]
    fn times_that_count_down_are_no_news() {
        let line =
            |left: &str| format!("phase Preparing of rotation a: waits for shop/web-0: {left}");
        assert_eq!(lasting(&line("89s left")), lasting(&line("87s left")));
        assert_ne!(
            lasting("phase Steady: waits for a"),
            lasting("phase Steady: waits for b")
        );
        assert_eq!(lasting("phase Steady"), "phase Steady");
    }
}
