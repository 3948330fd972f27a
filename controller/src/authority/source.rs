//! Reads and validates the issuer that another tool keeps, such as cert-manager, in a Secret
//! (issuer source `secret`) or in a folder (`files`).
//!
//! A Secret is read often and by name, and never written. What is taken is copied into the
//! authority's own Secret, key included: so all replicas read one thing, and a Secret that is
//! overwritten or gone stops nothing. What a folder holds is its replica's own and is copied nowhere.

use std::time::{Duration, SystemTime};

use identity::authority::candidate::{BadCandidate, Candidate, Texts};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use parking_lot::Mutex;
use policy::name::SpiffeId;
use tokio::time::Instant;
use tracing::warn;

use super::folder::FolderReader;
use crate::settings::authority::{AuthoritySettings, IssuerSource};

/// Tools write certificate and key one after the other.
const KEY_MAY_BE_EARLY: Duration = Duration::from_secs(60);
/// A file is written within this.
const HALF_WRITTEN: Duration = Duration::from_secs(5);

/// What the source holds.
#[derive(Debug)]
pub(super) enum Held {
    /// Nothing: the root is generated.
    Nothing,
    Usable(Box<Candidate>),
    /// Why it is not taken, with the way out.
    Rejected(String),
    /// It cannot be judged now.
    Unknown,
}

impl Held {
    pub(super) fn candidate(&self) -> Option<&Candidate> {
        match self {
            Self::Usable(candidate) => Some(candidate),
            Self::Nothing | Self::Rejected(_) | Self::Unknown => None,
        }
    }
}

/// What is remembered between two looks at a source.
#[derive(Debug, Default)]
pub(super) struct Looks {
    reader: FolderReader,
    secret_mismatches: Since,
    folder_mismatches: Since,
    /// Why the folder could not be used, and since when.
    defect: Mutex<Option<(String, Instant)>>,
    /// What the log says was rejected last.
    logged: Mutex<String>,
}

/// Since when a key has fitted no certificate.
type Since = Mutex<Option<Instant>>;

/// Reads the source.
pub(super) struct SourceReader<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    pub(super) settings: &'a AuthoritySettings,
    pub(super) own: &'a SpiffeId,
    pub(super) looks: &'a Looks,
}

impl SourceReader<'_> {
    /// What it holds now. `signs_until`: the end of the issuer in use.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(super) async fn read(
        &self,
        now: SystemTime,
        signs_until: Option<SystemTime>,
    ) -> Result<Held, kube::Error> {
        match &self.settings.source {
            IssuerSource::Generated => Ok(Held::Nothing),
            IssuerSource::Secret { name, roots } => {
                self.secret(name, roots.as_ref(), now, signs_until).await
            }
            IssuerSource::Files => self.folder(now, signs_until).await,
        }
    }

    async fn secret(
        &self,
        name: &str,
        roots: Option<&(String, String)>,
        now: SystemTime,
        signs_until: Option<SystemTime>,
    ) -> Result<Held, kube::Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let Some(secret) = secrets.get_opt(name).await? else {
            return Ok(Held::Rejected(format!(
                "Secret {name} does not exist: create it with tls.crt, tls.key and ca.crt, or correct \
                 identity.issuer.secretName"
            )));
        };
        let data = secret.data.unwrap_or_default();
        let held = |key: &str| match data.get(key) {
            Some(ByteString(bytes)) => bytes.as_slice(),
            None => &[],
        };
        let from_map = match self.map(roots).await? {
            Ok(from_map) => from_map,
            Err(why) => return Ok(Held::Rejected(why)),
        };
        let texts = Texts {
            certificate: held("tls.crt"),
            key: held("tls.key"),
            roots: match &from_map {
                Some(roots) => roots.as_bytes(),
                None => held("ca.crt"),
            },
        };
        Ok(judged(
            &format!("Secret {name}"),
            &self.looks.secret_mismatches,
            Candidate::parse(&texts, self.own, now, signs_until),
        ))
    }

    /// The same of this replica's folder, whichever source is configured; nothing without one.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(super) async fn folder(
        &self,
        now: SystemTime,
        signs_until: Option<SystemTime>,
    ) -> Result<Held, kube::Error> {
        let Some(directory) = &self.settings.directory else {
            return Ok(Held::Nothing);
        };
        let from_map = match self.map(directory.roots.as_ref()).await? {
            Ok(from_map) => from_map,
            Err(why) => return Ok(Held::Rejected(why)),
        };
        let name = format!("directory {}", directory.path.display());
        let reader = &self.looks.reader;
        let held = match reader.read(&directory.path, from_map.is_none()).await {
            Err(why) => Held::Rejected(format!("{name}: {why}")),
            Ok(files) => {
                let texts = Texts {
                    certificate: &files.certificate,
                    key: &files.key,
                    roots: match &from_map {
                        Some(roots) => roots.as_bytes(),
                        None => &files.roots,
                    },
                };
                let parsed = Candidate::parse(&texts, self.own, now, signs_until);
                judged(&name, &self.looks.folder_mismatches, parsed)
            }
        };
        Ok(self.looks.settled(held))
    }

    /// The roots of a ConfigMap, if one is configured, or why there are none.
    async fn map(
        &self,
        roots: Option<&(String, String)>,
    ) -> Result<Result<Option<String>, String>, kube::Error> {
        let Some((name, key)) = roots else {
            return Ok(Ok(None));
        };
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let map = maps.get_opt(name).await?.and_then(|map| map.data);
        let found = map.and_then(|mut map| map.remove(key));
        Ok(match found {
            Some(found) => Ok(Some(found)),
            None => Err(format!(
                "ConfigMap {name} has no key {key}: write the roots there, or correct identity.issuer.roots"
            )),
        })
    }
}

fn judged(name: &str, mismatches: &Since, parsed: Result<Candidate, BadCandidate>) -> Held {
    let mut mismatches = mismatches.lock();
    let error = match parsed {
        Ok(candidate) => {
            *mismatches = None;
            return Held::Usable(Box::new(candidate));
        }
        Err(error) => error,
    };
    if !matches!(error, BadCandidate::KeyMismatch) {
        *mismatches = None;
    } else if mismatches.get_or_insert_with(Instant::now).elapsed() < KEY_MAY_BE_EARLY {
        return Held::Unknown;
    }
    Held::Rejected(format!("{name}: {error}"))
}

impl Looks {
    /// Logs what is not taken, once.
    pub(super) fn log_rejected(&self, why: &str) {
        let mut logged = self.logged.lock();
        if *logged != why {
            warn!(target: "audit", why, "issuer rejected");
            why.clone_into(&mut logged);
        }
    }

    /// A defect of a folder counts once it is older than a write lasts.
    fn settled(&self, held: Held) -> Held {
        let mut defect = self.defect.lock();
        let why = match held {
            Held::Rejected(why) => why,
            other => {
                *defect = None;
                return other;
            }
        };
        let now = Instant::now();
        let since = match &*defect {
            Some((known, since)) if *known == why => *since,
            _ => now,
        };
        let lasts = now.duration_since(since);
        *defect = Some((why.clone(), since));
        match lasts >= HALF_WRITTEN {
            true => Held::Rejected(why),
            false => Held::Unknown,
        }
    }
}
