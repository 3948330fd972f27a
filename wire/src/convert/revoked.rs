//! Converts the list of revoked identities and certificates.
//!
//! What cannot be read refuses the whole resource, and the proxy keeps the last good one: without
//! one subject it would serve callers that others refuse, and the object's status would hide that.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::origin::Origin;
use policy::revoked::{ISSUER_LENGTH, MAX_SUBJECTS, Revocation, Revocations, Subject};

use super::error::BadResource;
use super::object::origin;
use crate::v1;
use crate::v1::revoked_subject::Subject as Sent;

/// Bytes of a certificate's number, by RFC 5280.
const MAX_SERIAL: usize = 20;

/// Everything that is revoked.
///
/// # Errors
/// With the field that is wrong.
pub fn revocations(message: &v1::Revocations) -> Result<Revocations, BadResource> {
    let counts = message.revocations.iter().map(|one| one.subjects.len());
    if counts.sum::<usize>() > MAX_SUBJECTS {
        let reason = format!("has more than {MAX_SUBJECTS} subjects");
        return Err(BadResource::new("revocations", reason));
    }
    let mut all = Vec::new();
    for (i, one) in message.revocations.iter().enumerate() {
        let here = |bad: BadResource| bad.within(format_args!("revocations[{i}]"));
        let by = origin(one.origin.as_ref()).map_err(here)?;
        let issued_before = issued_before(one.issued_before).map_err(here)?;
        for (j, sent) in one.subjects.iter().enumerate() {
            let here = |bad: BadResource| here(bad.within(format_args!("subjects[{j}]")));
            all.push(Revocation {
                subject: subject(sent).map_err(here)?,
                issued_before,
                announced: one.announced,
                by: by.clone(),
            });
        }
    }
    Ok(Revocations::of(all))
}

/// The inverse, from what [`Revocations::of`] takes. Neighbours of one object are sent together.
#[must_use]
pub fn revocations_message<'a>(all: impl IntoIterator<Item = &'a Revocation>) -> v1::Revocations {
    let mut message = v1::Revocations::default();
    let mut last: Option<(&Origin, Option<SystemTime>, bool)> = None;
    for one in all {
        let like = (&one.by, one.issued_before, one.announced);
        if last != Some(like) {
            last = Some(like);
            message.revocations.push(v1::Revocation {
                origin: Some((&one.by).into()),
                subjects: Vec::new(),
                issued_before: one.issued_before.map_or(0, milliseconds),
                announced: one.announced,
            });
        }
        if let Some(group) = message.revocations.last_mut() {
            group.subjects.push(subject_message(&one.subject));
        }
    }
    message
}

fn issued_before(milliseconds: u64) -> Result<Option<SystemTime>, BadResource> {
    if milliseconds == 0 {
        return Ok(None);
    }
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
    let at = at.ok_or_else(|| BadResource::new("issued_before", "is no time"))?;
    Ok(Some(at))
}

/// Rounded up, so that what is refused stays so; and never 0, which would refuse everything.
fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let rounded = since.as_nanos().div_ceil(1_000_000);
    u64::try_from(rounded).unwrap_or(u64::MAX).max(1)
}

fn subject(message: &v1::RevokedSubject) -> Result<Subject, BadResource> {
    let sent = message.subject.as_ref();
    match sent.ok_or_else(|| BadResource::unknown("subject"))? {
        Sent::ServiceAccount(account) => {
            for (field, text) in [("namespace", &account.namespace), ("name", &account.name)] {
                if text.is_empty() {
                    return Err(BadResource::new(field, "is missing").within("service_account"));
                }
            }
            Ok(Subject::ServiceAccount {
                namespace: account.namespace.as_str().into(),
                name: account.name.as_str().into(),
            })
        }
        Sent::Pod(uid) if uid.is_empty() => Err(BadResource::new("pod", "is empty")),
        Sent::Pod(uid) => Ok(Subject::Pod {
            uid: uid.as_str().into(),
        }),
        Sent::Serial(bytes) if bytes.is_empty() || bytes.len() > MAX_SERIAL => {
            let reason = format!("has {} bytes, not 1 to {MAX_SERIAL}", bytes.len());
            Err(BadResource::new("serial", reason))
        }
        Sent::Serial(bytes) => Ok(Subject::Serial(bytes.as_slice().into())),
        Sent::Issuer(bytes) => match <[u8; ISSUER_LENGTH]>::try_from(bytes.as_slice()) {
            Ok(id) => Ok(Subject::Issuer(id)),
            Err(_) => {
                let reason = format!("has {} bytes, not {ISSUER_LENGTH}", bytes.len());
                Err(BadResource::new("issuer", reason))
            }
        },
    }
}

fn subject_message(subject: &Subject) -> v1::RevokedSubject {
    let sent = match subject {
        Subject::ServiceAccount { namespace, name } => Sent::ServiceAccount(v1::RevokedAccount {
            namespace: namespace.to_string(),
            name: name.to_string(),
        }),
        Subject::Pod { uid } => Sent::Pod(uid.to_string()),
        Subject::Serial(bytes) => Sent::Serial(bytes.to_vec()),
        Subject::Issuer(id) => Sent::Issuer(id.to_vec()),
    };
    v1::RevokedSubject {
        subject: Some(sent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(subject: Subject, seconds: Option<u64>, name: &str) -> Revocation {
        Revocation {
            subject,
            issued_before: seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
            announced: seconds == Some(300),
            by: Origin::new("Revocation", "", name),
        }
    }

    fn all() -> Vec<Revocation> {
        let account = Subject::ServiceAccount {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let pod = Subject::Pod {
            uid: "uid-1".into(),
        };
        vec![
            revocation(account.clone(), None, "a"),
            revocation(pod.clone(), None, "a"),
            revocation(Subject::Serial([0, 0xf3].into()), None, "a"),
            revocation(Subject::Issuer([7; 16]), Some(200), "b"),
            revocation(pod, Some(200), "b"),
            revocation(account, Some(300), "b"),
        ]
    }

    #[test]
    fn revocations_survive_the_wire_in_few_groups() {
        let message = revocations_message(&all());
        let groups = message.revocations.iter().map(|one| one.subjects.len());
        assert_eq!(groups.collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(revocations(&message), Ok(Revocations::of(all())));
        let nothing = revocations(&v1::Revocations::default()).unwrap();
        assert!(nothing.is_empty());
    }

    #[test]
    fn time_of_issue_is_rounded_up_and_never_lost() {
        let sent = |at| {
            let one = Revocation {
                issued_before: Some(at),
                ..revocation(Subject::Issuer([7; 16]), None, "a")
            };
            revocations_message([&one]).revocations[0].issued_before
        };
        assert_eq!(sent(UNIX_EPOCH), 1, "0 would refuse all of them");
        assert_eq!(sent(UNIX_EPOCH - Duration::from_secs(1)), 1);
        assert_eq!(sent(UNIX_EPOCH + Duration::from_micros(2_000)), 2);
        assert_eq!(sent(UNIX_EPOCH + Duration::from_micros(2_001)), 3);
    }

    #[test]
    fn malformed_revocation_names_its_field() {
        let refused = |change: &dyn Fn(&mut v1::Revocations)| {
            let mut message = revocations_message(&all());
            change(&mut message);
            revocations(&message).unwrap_err().to_string()
        };
        let subject = |sent: Sent| {
            refused(&|message| message.revocations[0].subjects[1].subject = Some(sent.clone()))
        };
        let of_account = |namespace: &str, name: &str| {
            subject(Sent::ServiceAccount(v1::RevokedAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }))
        };
        let rows = [
            (
                refused(&|message| message.revocations[1].origin = None),
                "revocations[1].origin: is missing",
            ),
            (
                refused(&|message| message.revocations[0].subjects[2].subject = None),
                "revocations[0].subjects[2].subject: is of a kind that this version does not know",
            ),
            (
                of_account("", "web"),
                "revocations[0].subjects[1].service_account.namespace: is missing",
            ),
            (
                of_account("shop", ""),
                "revocations[0].subjects[1].service_account.name: is missing",
            ),
            (
                subject(Sent::Pod(String::new())),
                "revocations[0].subjects[1].pod: is empty",
            ),
            (
                subject(Sent::Serial(Vec::new())),
                "revocations[0].subjects[1].serial: has 0 bytes, not 1 to 20",
            ),
            (
                subject(Sent::Serial(vec![1; 21])),
                "revocations[0].subjects[1].serial: has 21 bytes, not 1 to 20",
            ),
            (
                subject(Sent::Issuer(vec![1; 15])),
                "revocations[0].subjects[1].issuer: has 15 bytes, not 16",
            ),
        ];
        for (refused, expected) in rows {
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn more_subjects_than_allowed_are_refused() {
        let of = |count: usize| {
            let pods = (0..count).map(|at| {
                let uid = format!("uid-{at}").into();
                revocation(Subject::Pod { uid }, None, "a")
            });
            revocations(&revocations_message(&pods.collect::<Vec<_>>()))
        };
        assert!(of(MAX_SUBJECTS).is_ok());
        let refused = of(MAX_SUBJECTS + 1).unwrap_err().to_string();
        assert_eq!(refused, "revocations: has more than 4096 subjects");
    }
}
