//! Checks of the certificate authority's object: whether a rotation waits for long, and whether its
//! source is in use; and of Revocations.

use std::time::Duration;

use crds::smi::{ACCEPTED, PROGRAMMED, RESOLVED_REFS};
use crds::weft::{AuthorityPhase, ROTATING, RotatingReason, USABLE};
use serde_json::Value;

use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};
use crate::output::number;

/// A Revocation is in force within seconds, unless proxies lack it.
const REVOKED_WITHIN: Duration = Duration::from_secs(60);
/// Longest time of one phase that is none to look after.
const PHASE_WITHIN: Duration = Duration::from_secs(600);

pub(super) fn rotation(facts: &Facts) -> CheckResult {
    let Some(authority) = facts.existing("authority")? else {
        return Ok(without_object());
    };
    let status = &authority["status"];
    let phase = status["phase"].as_str().unwrap_or("not known");
    let rotating = condition(authority, ROTATING);
    let reason = rotating.map_or("", |rotating| text(rotating, "reason"));
    if reason == RotatingReason::RootIsExternal.as_str() {
        let message = rotating.map_or("", |rotating| text(rotating, "message"));
        return Ok((CheckStatus::Warning, message.to_owned()));
    }
    if phase == AuthorityPhase::Steady.as_str() {
        // One that is requested may have to wait for its begin.
        let summary = status["summary"].as_str().unwrap_or_default();
        return Ok((CheckStatus::Ok, joined(phase.to_owned(), summary)));
    }
    let since = status["rotation"]["phaseSince"].as_str();
    let since = since.and_then(|since| facts.ago(since));
    let message = match since {
        Some(since) => format!("phase {phase} for {}", number::age(since)),
        None => format!("phase {phase}"),
    };
    let message = joined(message, text(status, "summary"));
    let is_late = since.is_some_and(|since| since > PHASE_WITHIN);
    Ok(
        match is_late || reason == RotatingReason::Waiting.as_str() {
            true => (CheckStatus::Warning, message),
            false => (CheckStatus::Ok, message),
        },
    )
}

pub(super) fn issuer_source(facts: &Facts) -> CheckResult {
    let Some(authority) = facts.existing("authority")? else {
        return Ok(without_object());
    };
    let source = authority["status"]["source"].as_str();
    let source = source.unwrap_or("not known").to_owned();
    let usable = condition(authority, USABLE);
    Ok(match usable.filter(|usable| usable["status"] == "False") {
        Some(usable) => {
            let reason = text(usable, "reason").to_owned();
            (
                CheckStatus::Warning,
                joined(reason, text(usable, "message")),
            )
        }
        None => (CheckStatus::Ok, source),
    })
}

/// A Revocation of which proxies or controllers leave something undone is worse than none: its
/// author relies on it.
pub(super) fn revocations(facts: &Facts) -> CheckResult {
    let all = facts.list("revocations")?;
    let wrong: Vec<String> = all.iter().filter_map(|one| lack(facts, one)).collect();
    let ended = ended(facts);
    if !wrong.is_empty() {
        return Ok((CheckStatus::Warning, joined(few(&wrong), &ended)));
    }
    let accepted = |one: &&Value| condition(one, ACCEPTED).is_some_and(|of| of["status"] == "True");
    let in_force = format!("{} in force", all.iter().filter(accepted).count());
    Ok((CheckStatus::Ok, joined(in_force, &ended)))
}

/// `2 proxies are revoked for good: shop/web-1, shop/web-2`; empty without any.
fn ended(facts: &Facts) -> String {
    let proxies = facts.whole("proxies").unwrap_or_default().iter();
    let ended = proxies.filter(|proxy| proxy["status"]["revokedBy"].is_string());
    let ended: Vec<String> = ended.map(name_of).collect();
    match ended.is_empty() {
        true => String::new(),
        false => format!(
            "{} proxies are revoked for good: {}",
            ended.len(),
            few(&ended)
        ),
    }
}

/// What one lacks, after the time that it may take.
fn lack(facts: &Facts, revocation: &Value) -> Option<String> {
    let made = revocation["metadata"]["creationTimestamp"].as_str();
    let age = made.and_then(|made| facts.ago(made));
    if age.is_some_and(|age| age < REVOKED_WITHIN) {
        return None;
    }
    let name = name_of(revocation);
    let of = |kind: &str| condition(revocation, kind);
    let failed = [ACCEPTED, RESOLVED_REFS, PROGRAMMED]
        .into_iter()
        .find_map(|kind| of(kind).filter(|one| one["status"] != "True"));
    match failed {
        Some(failed) => {
            let reason = format!("{name} {}", text(failed, "reason"));
            Some(joined(reason, text(failed, "message")))
        }
        None if of(PROGRAMMED).is_none() => Some(format!("{name}: no controller has read it")),
        None => None,
    }
}

fn without_object() -> (CheckStatus, String) {
    let words = "this Weft has no CertificateAuthority, and rotates its issuer alone";
    (CheckStatus::Ok, words.to_owned())
}

fn condition<'a>(authority: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = authority["status"]["conditions"].as_array()?;
    conditions.iter().find(|one| one["type"] == kind)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// `phase Activating: waits for shop/web-0`
fn joined(message: String, more: &str) -> String {
    match more {
        "" => message,
        more => format!("{message}: {more}"),
    }
}
