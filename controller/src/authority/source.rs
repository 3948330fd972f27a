//! The issuer that another tool keeps in a Secret, such as cert-manager: read, and judged.
//!
//! It is read often and by name, and never written. What is taken is copied into the authority's own
//! Secret, key included: so all replicas read one thing, and a Secret that is overwritten or gone
//! stops nothing.

use std::time::{Duration, SystemTime};

use identity::authority::candidate::{BadCandidate, Candidate, Texts};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use parking_lot::Mutex;
use policy::name::SpiffeId;
use tokio::time::Instant;

use crate::settings::authority::IssuerSource;

/// Tools write certificate and key one after the other.
const KEY_MAY_BE_EARLY: Duration = Duration::from_secs(60);

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

/// Reads the source.
pub(super) struct SourceReader<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    pub(super) source: &'a IssuerSource,
    pub(super) own: &'a SpiffeId,
    /// Since when the key has fitted no certificate.
    pub(super) mismatched: &'a Mutex<Option<Instant>>,
}

impl SourceReader<'_> {
    /// What it holds now. `signs_until`: the end of the issuer in use.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(super) async fn read(
        &self,
        now: SystemTime,
        signs_until: SystemTime,
    ) -> Result<Held, kube::Error> {
        let IssuerSource::Secret { name, roots } = self.source else {
            return Ok(Held::Nothing);
        };
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
        let from_map;
        let of_roots = match roots {
            None => held("ca.crt"),
            Some((name, key)) => {
                let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
                let map = maps.get_opt(name).await?.and_then(|map| map.data);
                let Some(found) = map.and_then(|mut map| map.remove(key)) else {
                    return Ok(Held::Rejected(format!(
                        "ConfigMap {name} has no key {key}: write the roots there, or correct \
                         identity.issuer.roots"
                    )));
                };
                from_map = found;
                from_map.as_bytes()
            }
        };
        let texts = Texts {
            certificate: held("tls.crt"),
            key: held("tls.key"),
            roots: of_roots,
        };
        Ok(self.judged(
            name,
            Candidate::parse(&texts, self.own, now, Some(signs_until)),
        ))
    }

    fn judged(&self, name: &str, parsed: Result<Candidate, BadCandidate>) -> Held {
        let mut mismatched = self.mismatched.lock();
        let error = match parsed {
            Ok(candidate) => {
                *mismatched = None;
                return Held::Usable(Box::new(candidate));
            }
            Err(error) => error,
        };
        if !matches!(error, BadCandidate::KeyMismatch) {
            *mismatched = None;
        } else if mismatched.get_or_insert_with(Instant::now).elapsed() < KEY_MAY_BE_EARLY {
            return Held::Unknown;
        }
        Held::Rejected(format!("Secret {name}: {error}"))
    }
}
