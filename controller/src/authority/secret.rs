//! The Secret with the keys of the mesh's authority: parses it, generates its content, and reports
//! why one is unusable.
//!
//! May import nothing of this crate.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

pub(crate) use crds::objects::CA_SECRET as SECRET;
use identity::authority::{BadAuthority, ISSUER_LIFE, ROOT_LIFE};
use identity::rotation::State;
use identity::verify::{AuthorityId, BadRoots};
use identity::{Issuer, Root, Roots};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use policy::name::SpiffeId;

pub(super) const ROOT_CRT: &str = "root.crt";
pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const ISSUER_CRT: &str = "issuer.crt";
pub(super) const ISSUER_KEY: &str = "issuer.key";
pub(super) const TRUST_DOMAIN: &str = "trust-domain";
/// The root that will sign, while it is brought to everything that verifies: with its key, or with
/// the issuer that its owner made below it. No former version reads these.
pub(super) const NEXT_ROOT_CRT: &str = "next.root.crt";
pub(super) const NEXT_ROOT_KEY: &str = "next.root.key";
pub(super) const NEXT_ISSUER_CRT: &str = "next.issuer.crt";
pub(super) const NEXT_ISSUER_KEY: &str = "next.issuer.key";
/// See [`identity::rotation::State`].
pub(super) const ROTATION: &str = "rotation.json";
/// The root of the aggregated APIs, then the one before it.
pub(super) const API_CRT: &str = "api.crt";
pub(super) const API_KEY: &str = "api.key";
/// The roots of a content that the Lease holder took out again. A replica that started from them goes
/// back to those of the others.
pub(super) const REVERTED: &str = "reverted.crt";

/// Why no certificate can be issued, or the Secret not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// A key of the Secret is missing or not text.
    #[error("{SECRET} has no usable key {0}")]
    Missing(&'static str),
    /// Roots cannot be used.
    #[error("{SECRET}: the roots are not usable: {0}")]
    Roots(#[from] BadRoots),
    /// Root or issuer cannot be used.
    #[error("{SECRET}: {0}")]
    Authority(#[from] BadAuthority),
    /// The issuer's life is over, or has not started.
    #[error("{SECRET}: the issuer {0}; the holder of the Lease makes a new one")]
    OutsideLife(OutsideLife),
    /// The issuer has to be replaced, and no replica can.
    #[error(
        "{SECRET}: the issuer {0} and the root's key ({ROOT_KEY}) is not here to \
         make a new one: put an issuer that the root has signed into {ISSUER_CRT} and {ISSUER_KEY}"
    )]
    NoRootKey(OutsideLife),
    /// The issuers are files, and this replica has none that could sign.
    #[error(
        "{SECRET}: the mesh's issuers are files, and the folder of this controller holds none below root \
         {root} that is valid at {now}: put one there (identity.issuer.directory), or, where another source \
         was configured, keep directory and its volume until CertificateAuthority weft has that source"
    )]
    NoOwnIssuer {
        /// The first root.
        root: String,
        /// By this controller's clock.
        now: String,
    },
    /// The root's life is over.
    #[error(
        "{SECRET}: the root ended at {ended}: delete the Secret while no controller runs, \
         then start one, which makes a new root, and restart all meshed pods"
    )]
    RootEnded {
        /// When.
        ended: String,
    },
    /// The mesh has another trust domain than this controller is configured with.
    #[error(
        "this controller is configured with trust domain {given:?} (identity.trustDomain), but the mesh was \
         started with {recorded:?} ({TRUST_DOMAIN} in Secret {SECRET}) and its proxies have \
         identities of that: set identity.trustDomain={recorded}, or, to change the trust domain \
         on purpose and restart every meshed pod, write {given:?} into the Secret first: kubectl \
         -n {namespace} patch secret {SECRET} -p '{{\"stringData\":{{\"{TRUST_DOMAIN}\":\"{given}\"}}}}'"
    )]
    TrustDomain {
        /// The trust domain that this controller is configured with.
        given: String,
        /// What the Secret says.
        recorded: String,
        /// Where the Secret is.
        namespace: String,
    },
    /// A replica that starts waits for those that run.
    #[error(
        "{SECRET}: its first root is not among those of CertificateAuthority weft, as after the restore of a backup: it is taken a minute after the start unless a running controller writes its own back"
    )]
    Restored,
    /// A replica that starts takes no root whose key is known.
    #[error(
        "{SECRET}: its first root was taken out by a Compromise, since its key is known (RootRetired): \
         restore a later content, or, to trust it again, delete CertificateAuthority weft"
    )]
    RootRetired,
    /// The state of a rotation cannot be written.
    #[error("{SECRET}: {ROTATION} cannot be written: {0}")]
    State(#[from] serde_json::Error),
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Why an issuer may sign nothing at this moment, with the date that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutsideLife {
    /// It was not replaced in time.
    Ended(String),
    /// A clock was ahead when it was made and has been put right, or this one is behind.
    NotYetValid(String),
}

impl OutsideLife {
    /// None where it may sign.
    pub(super) fn of(issuer: &Issuer, now: SystemTime) -> Option<Self> {
        if now >= issuer.not_after() {
            return Some(Self::Ended(date(issuer.not_after())));
        }
        let begins = issuer.not_before();
        (now < begins).then(|| Self::NotYetValid(date(begins)))
    }

    /// The reason of its Event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Ended(_) => "IssuerEnded",
            Self::NotYetValid(_) => "IssuerNotYetValid",
        }
    }
}

impl fmt::Display for OutsideLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(date) => write!(f, "ended at {date}"),
            Self::NotYetValid(date) => write!(
                f,
                "is not valid before {date} by this controller's clock: that is behind, or the one by which \
                 it was made was ahead"
            ),
        }
    }
}

pub(super) fn text<'a>(
    data: &'a BTreeMap<String, ByteString>,
    key: &'static str,
) -> Result<&'a str, CaError> {
    let bytes = data.get(key).ok_or(CaError::Missing(key))?;
    std::str::from_utf8(&bytes.0).map_err(|_| CaError::Missing(key))
}

/// Which key of a content was not loaded by this error, and why. None: the content is not the
/// reason.
pub(super) fn unusable_key(
    data: &BTreeMap<String, ByteString>,
    error: &CaError,
) -> Option<(&'static str, String)> {
    let bad = match error {
        CaError::Missing(key) => return Some((*key, "it is missing, or no text".to_owned())),
        CaError::Roots(bad) => return Some((ROOT_CRT, bad.to_string())),
        CaError::Authority(bad) => bad,
        _ => return None,
    };
    let issuer = match (text(data, ISSUER_CRT), text(data, ISSUER_KEY)) {
        (Ok(certificate), Ok(key)) => Issuer::from_pem(certificate, key).map(|_| ()),
        // The folders have it.
        _ => Ok(()),
    };
    let key = match (bad, issuer) {
        (BadAuthority::Key | BadAuthority::KeyMismatch, Ok(())) => ROOT_KEY,
        (BadAuthority::Key | BadAuthority::KeyMismatch, Err(_)) => ISSUER_KEY,
        (BadAuthority::Certificate | BadAuthority::NotAnAuthority, Ok(())) => ROOT_CRT,
        _ => ISSUER_CRT,
    };
    Some((key, bad.to_string()))
}

/// The key of a root that was brought may be elsewhere; then its owner renews the
/// issuer.
pub(super) fn root_with_key(
    data: &BTreeMap<String, ByteString>,
    roots_pem: &str,
) -> Result<Option<Root>, CaError> {
    match text(data, ROOT_KEY) {
        Ok(key) if !key.is_empty() => Ok(Some(Root::from_pem(first_certificate(roots_pem), key)?)),
        _ => Ok(None),
    }
}

/// Signs the serving certificates of the aggregated APIs. The API server checks no identity of the
/// mesh, so the name constraints of a mesh's issuer do not concern it.
#[derive(Debug)]
pub(super) struct ApiRoot {
    pub(super) root: Root,
    /// With the root before it.
    pub(super) pem: String,
}

impl ApiRoot {
    /// None where the Secret is of a version without one.
    pub(super) fn from_data(
        data: &BTreeMap<String, ByteString>,
        own: &SpiffeId,
    ) -> Result<Option<Self>, CaError> {
        if !data.contains_key(API_CRT) {
            return Ok(None);
        }
        let pem = text(data, API_CRT)?.to_owned();
        let root = Root::from_pem(first_certificate(&pem), text(data, API_KEY)?)?;
        // All of it goes to the API server.
        Roots::from_pem(own, &pem)?;
        Ok(Some(Self { root, pem }))
    }
}

/// A new root of the aggregated APIs, and its key. `former` stays beside it while certificates below
/// it are in use.
pub(super) fn fresh_api_root(
    former: Option<&str>,
    now: SystemTime,
) -> Result<[(String, ByteString); 2], BadAuthority> {
    let root = Root::for_serving(now, ROOT_LIFE)?;
    let mut pem = root.cert_pem().to_owned();
    if let Some(former) = former {
        pem = format!("{}\n{former}", pem.trim_end());
    }
    let pair = |key: &str, text: String| (key.to_owned(), ByteString(text.into_bytes()));
    Ok([pair(API_CRT, pem), pair(API_KEY, root.key_pem())])
}

/// What a content says of its step and rotation, or what follows from its certificates where that
/// does not describe them: a person or a former version may have written one without the other.
/// `ids`: of its roots, the one that signs first.
pub(super) fn state(
    data: &BTreeMap<String, ByteString>,
    ids: &[AuthorityId],
    issuer: &Issuer,
) -> Option<State> {
    let issuer = issuer.id()?;
    let root = *ids.first()?;
    let Some(mut stored) = stored(data) else {
        return Some(State::of(root, issuer));
    };
    if !stored.describes(ids) {
        return Some(stored.corrected(root, issuer));
    }
    // A former version renews the issuer and knows nothing of this.
    if !stored.issuers.contains(&issuer) {
        stored.issuers.push(issuer);
    }
    Some(stored)
}

/// What a content says itself.
pub(super) fn stored(data: &BTreeMap<String, ByteString>) -> Option<State> {
    let stored = data.get(ROTATION)?;
    serde_json::from_slice(&stored.0).ok()
}

/// The step alone, of a content that may not be usable.
pub(super) fn step(data: &BTreeMap<String, ByteString>) -> u64 {
    stored(data).map_or(0, |state| state.step)
}

/// A text as a field of the Secret.
pub(super) fn field(key: &str, text: impl Into<Vec<u8>>) -> (String, ByteString) {
    (key.to_owned(), ByteString(text.into()))
}

pub(super) fn put_issuer(issuer: &Issuer, data: &mut BTreeMap<String, ByteString>) {
    data.extend([
        field(ISSUER_CRT, issuer.cert_pem()),
        field(ISSUER_KEY, issuer.key_pem()),
    ]);
}

/// The Secret with this content, as it is created.
pub(super) fn holding(data: BTreeMap<String, ByteString>) -> Secret {
    let labels = BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "weft".to_owned())]);
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    }
}

/// The trust domain that the Secret names. A value that is not text is some other
/// trust domain than any.
pub(super) fn recorded(data: &BTreeMap<String, ByteString>) -> Option<String> {
    let bytes = data.get(TRUST_DOMAIN)?;
    Some(String::from_utf8_lossy(&bytes.0).trim().to_owned())
}

/// Which client wrote the Secret last, by what the API server recorded.
pub(super) fn last_manager(secret: &Secret) -> &str {
    let entries = secret.metadata.managed_fields.iter().flatten();
    let last = entries.max_by_key(|entry| &entry.time);
    let manager = last.and_then(|entry| entry.manager.as_deref());
    manager.unwrap_or("unknown")
}

/// By how many seconds the clock of the API server differs from `now`, by what it recorded of this
/// write. None where it records nothing.
pub(super) fn clock_difference(meta: &ObjectMeta, now: SystemTime) -> Option<u64> {
    let entries = meta.managed_fields.iter().flatten();
    let last = entries.filter_map(|entry| entry.time.as_ref()).max()?;
    let now = Timestamp::try_from(now).ok()?;
    Some(now.as_second().abs_diff(last.0.as_second()))
}

/// The signing root stands first in the list.
pub(super) fn first_certificate(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    pem.find(END).map_or(pem, |at| &pem[..at + END.len()])
}

/// A new root of this life and a new issuer, and the root of the aggregated APIs.
pub(super) fn fresh(
    own: &SpiffeId,
    root_life: Duration,
    now: SystemTime,
) -> Result<BTreeMap<String, ByteString>, BadAuthority> {
    let root = Root::generate(now, root_life)?;
    let issuer = root.issuer(now, ISSUER_LIFE)?;
    let pair = |key: &str, text: String| (key.to_owned(), ByteString(text.into_bytes()));
    let mut data = BTreeMap::from([
        pair(ROOT_CRT, root.cert_pem().to_owned()),
        pair(ROOT_KEY, root.key_pem()),
        pair(ISSUER_CRT, issuer.cert_pem().to_owned()),
        pair(ISSUER_KEY, issuer.key_pem()),
        pair(TRUST_DOMAIN, own.trust_domain().to_owned()),
    ]);
    data.extend(fresh_api_root(None, now)?);
    Ok(data)
}

/// How status, Revocations and messages name an authority: by its name and key.
pub(super) fn named(authority: AuthorityId) -> String {
    format!("sha256:{authority}")
}

pub(super) fn date(at: SystemTime) -> String {
    match Timestamp::try_from(at) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "a time out of range".to_owned(),
    }
}
