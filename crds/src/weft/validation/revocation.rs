//! Validates a Revocation and parses its meaning.
//!
//! A mistake in a subject costs that subject: the others are refused all the same. A mistake in
//! `issuedBefore` costs the object: without the time it would end workloads that it spares.

use std::{fmt, sync::Arc, sync::LazyLock};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::objects;
use super::reader::{FieldReader, shown};
use crate::label_syntax::{is_dns_label, is_object_name};
use crate::smi::schema;
use crate::smi::validation::{Mistake, Mistakes, Validate, ValidationContext, unknown_fields};
use crate::weft::{RevocationSpec, RevokedSubject};

/// What a mistake in a subject ends with.
const SUBJECT_IGNORED: &str = "this subject is not revoked";
/// What every other mistake ends with.
const NO_EFFECT: &str = "nothing is revoked";
/// Characters of a reason, as in the schema.
const LONGEST_REASON: usize = 256;
/// Most subjects, as in the schema.
const MOST_SUBJECTS: usize = 64;
/// Characters of a uid, as in the schema.
const LONGEST_UID: usize = 63;
/// Hex digits of a serial number, as in the schema.
const SERIAL_DIGITS: std::ops::RangeInclusive<usize> = 2..=40;
/// What a fingerprint begins with.
const SHA256: &str = "sha256:";
/// Fields of the kind that hold objects wherever they stand.
const OBJECTS: [&str; 5] = ["serviceAccount", "pod", "node", "certificate", "issuer"];

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<RevocationSpec>);

/// The content of a Revocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Why.
    pub reason: Arc<str>,
    /// The subjects that can be read, each with its place in the list. None where the object has
    /// no effect.
    pub subjects: Vec<(usize, RevocationSubject)>,
    /// Seconds since 1970: only certificates that were issued before.
    pub issued_before: Option<i64>,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationSubject {
    /// All pods of a service account.
    ServiceAccount {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// One pod.
    Pod {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// `None`: of the first pod of this name that is seen.
        uid: Option<Arc<str>>,
    },
    /// The pods of a node.
    Node {
        /// Its name.
        name: Arc<str>,
    },
    /// One certificate, by the bytes of its serial number without leading zeros.
    Certificate {
        /// Those bytes.
        serial: Arc<[u8]>,
    },
    /// All certificates of an issuer, by the first half of the SHA-256 of its name and key.
    Issuer {
        /// That half.
        authority: [u8; 16],
    },
}

/// As statuses, Events and the log have it: `sa shop/web`, `pod shop/db-0`, `node node-2`.
impl fmt::Display for RevocationSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAccount { namespace, name } => write!(f, "sa {namespace}/{name}"),
            Self::Pod {
                namespace, name, ..
            } => write!(f, "pod {namespace}/{name}"),
            Self::Node { name } => write!(f, "node {name}"),
            Self::Certificate { serial } => {
                f.write_str("certificate ")?;
                write_hex(f, serial)
            }
            Self::Issuer { authority } => {
                write!(f, "issuer {SHA256}")?;
                write_hex(f, authority)
            }
        }
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl Validate for RevocationSpec {
    type Validated = Revoked;

    const UNREADABLE: &'static str = NO_EFFECT;

    fn validate(&self, at: &ValidationContext<'_>) -> (Revoked, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let mut reader = FieldReader::new(at.namespace, None, &mut mistakes);
        self.check_reason(&mut reader);
        let subjects = self.subjects(&mut reader);
        let issued_before = reader.whole_of(NO_EFFECT, |reader| {
            let written = self.issued_before.as_deref();
            Some(written.and_then(|text| time("spec.issuedBefore", text, reader)))
        });
        let revoked = Revoked {
            reason: self.reason.as_str().into(),
            subjects: match issued_before {
                Some(_) => subjects,
                None => Vec::new(),
            },
            issued_before: issued_before.flatten(),
        };
        (revoked, mistakes.into_vec())
    }

    fn unreadable(_: &Value, _: &ValidationContext<'_>) -> Revoked {
        Revoked::default()
    }

    fn misshapen(written: &Value, mistakes: &mut Mistakes) {
        objects("spec", written, &OBJECTS, mistakes);
    }

    fn besides(written: &Value, mistakes: &mut Mistakes) {
        unknown_fields("this kind", "spec", written, &SCHEMA, mistakes);
    }
}

impl RevocationSpec {
    /// A reason says nothing about what is revoked, so a mistake in it costs nothing.
    fn check_reason(&self, reader: &mut FieldReader<'_>) {
        let characters = self.reason.chars().count();
        if !(1..=LONGEST_REASON).contains(&characters) {
            let text = format!(
                "has {characters} characters, but must have 1 to {LONGEST_REASON}: say why the \
                 subjects are revoked"
            );
            reader.mistakes().invalid("spec.reason", text);
        }
    }

    fn subjects(&self, reader: &mut FieldReader<'_>) -> Vec<(usize, RevocationSubject)> {
        const FIELD: &str = "spec.subjects";
        let count = self.subjects.len();
        if !(1..=MOST_SUBJECTS).contains(&count) {
            let text =
                format!("has {count} entries, but must have 1 to {MOST_SUBJECTS}; {NO_EFFECT}");
            reader.mistakes().invalid(FIELD, text);
            return Vec::new();
        }
        let mut subjects = Vec::with_capacity(count);
        for (i, written) in self.subjects.iter().enumerate() {
            let field = format!("{FIELD}[{i}]");
            let read = reader.whole_of(SUBJECT_IGNORED, |reader| written.read(&field, reader));
            subjects.extend(read.map(|subject| (i, subject)));
        }
        subjects
    }
}

impl RevokedSubject {
    fn read(&self, field: &str, reader: &mut FieldReader<'_>) -> Option<RevocationSubject> {
        let mut held = Vec::new();
        if let Some(account) = &self.service_account {
            let field = format!("{field}.serviceAccount");
            held.push(
                object(&field, (&account.namespace, &account.name), reader)
                    .map(|(namespace, name)| RevocationSubject::ServiceAccount { namespace, name }),
            );
        }
        if let Some(pod) = &self.pod {
            let field = format!("{field}.pod");
            let uid = uid(&field, pod.uid.as_deref(), reader);
            held.push(object(&field, (&pod.namespace, &pod.name), reader).map(
                |(namespace, name)| RevocationSubject::Pod {
                    namespace,
                    name,
                    uid,
                },
            ));
        }
        if let Some(node) = &self.node {
            let field = format!("{field}.node.name");
            held.push(
                name(&field, &node.name, reader).map(|name| RevocationSubject::Node { name }),
            );
        }
        if let Some(certificate) = &self.certificate {
            let field = format!("{field}.certificate.serial");
            let serial = serial(&field, &certificate.serial, reader);
            held.push(serial.map(|serial| RevocationSubject::Certificate { serial }));
        }
        if let Some(issuer) = &self.issuer {
            let field = format!("{field}.issuer.fingerprint");
            let authority = fingerprint(&field, &issuer.fingerprint, reader);
            held.push(authority.map(|authority| RevocationSubject::Issuer { authority }));
        }
        if held.len() != 1 {
            let text = format!(
                "holds {} of serviceAccount, pod, node, certificate and issuer, but must hold one; \
                 write each into a subject of its own",
                held.len()
            );
            reader.wrong(field, &text);
        }
        held.pop().flatten()
    }
}

/// Namespace and name of an object.
fn object(
    field: &str,
    (namespace, written): (&str, &str),
    reader: &mut FieldReader<'_>,
) -> Option<(Arc<str>, Arc<str>)> {
    if !is_dns_label(namespace) {
        let text = format!(
            "is {:?}, but must be the name of a namespace",
            shown(namespace)
        );
        reader.wrong(&format!("{field}.namespace"), &text);
    }
    let name = name(&format!("{field}.name"), written, reader)?;
    Some((namespace.into(), name))
}

fn name(field: &str, written: &str, reader: &mut FieldReader<'_>) -> Option<Arc<str>> {
    if !is_object_name(written) {
        let text = format!("is {:?}, but must be the name of an object", shown(written));
        reader.wrong(field, &text);
        return None;
    }
    Some(written.into())
}

/// The uid of a pod, in the letters that a certificate may have.
fn uid(field: &str, written: Option<&str>, reader: &mut FieldReader<'_>) -> Option<Arc<str>> {
    let written = written.filter(|uid| !uid.is_empty())?;
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if written.len() > LONGEST_UID || !written.bytes().all(is_letter) {
        let text = format!(
            "is {:?}, but must be a uid, as metadata.uid of the pod has it",
            shown(written)
        );
        reader.wrong(&format!("{field}.uid"), &text);
    }
    Some(written.into())
}

fn serial(field: &str, written: &str, reader: &mut FieldReader<'_>) -> Option<Arc<[u8]>> {
    // The zero before a single digit is left out by some tools.
    let even = match written.len() % 2 {
        0 => written.to_owned(),
        _ => format!("0{written}"),
    };
    let bytes = hex(&even).filter(|_| SERIAL_DIGITS.contains(&written.len()));
    let first = bytes.iter().flatten().position(|byte| *byte != 0);
    let (Some(bytes), Some(first)) = (bytes, first) else {
        let text = format!(
            "is {:?}, but must be a serial number of 2 to 40 hex digits, not all 0, without colons",
            shown(written)
        );
        reader.wrong(field, &text);
        return None;
    };
    Some(Arc::from(&bytes[first..]))
}

fn fingerprint(field: &str, written: &str, reader: &mut FieldReader<'_>) -> Option<[u8; 16]> {
    let digits = written.strip_prefix(SHA256);
    let digits = digits.filter(|digits| !digits.bytes().any(|b| b.is_ascii_uppercase()));
    let read = digits.and_then(hex);
    let read = read.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    if read.is_none() {
        let text = format!(
            "is {:?}, but must be \"sha256:\" and 32 hex digits: authority of the issuers of \
             CertificateAuthority weft, or signer in weft identity -o json",
            shown(written)
        );
        reader.wrong(field, &text);
    }
    read
}

/// Bytes of an even number of hex digits.
fn hex(digits: &str) -> Option<Vec<u8>> {
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let pairs = (0..digits.len()).step_by(2);
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    is_hex.then(|| pairs.map(byte).collect()).flatten()
}

fn time(field: &str, written: &str, reader: &mut FieldReader<'_>) -> Option<i64> {
    let time = written.parse::<Timestamp>().ok();
    if time.is_none() {
        let text = format!(
            "is {:?}, but must be a time such as \"2027-01-31T00:00:00Z\"",
            shown(written)
        );
        reader.wrong(field, &text);
    }
    // Certificates have whole seconds: rounded down, one of the same second would not be older.
    time.map(|time| time.as_second() + i64::from(time.subsec_nanosecond() > 0))
}
