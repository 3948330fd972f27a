//! The webhooks' own certificate authority, shared by all replicas in a Secret.
//!
//! Each replica signs its own serving certificate, so no private key of a leaf is
//! ever stored. The authority is replaced in two steps with a pause between them:
//! first the next one becomes trusted, later it signs. At no moment does a replica
//! serve what the API server does not trust yet.
//!
//! No lease: every step is computed from the Secret and written with its resource
//! version, so of several replicas that take it one succeeds and the others read
//! again.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crds::objects::INJECTOR_CA_SECRET;
use identity::Root;
use identity::authority::{BACKDATE, BadAuthority};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tracing::{info, warn};

/// How long one authority lasts: a year.
pub(crate) const LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long the next authority is trusted before it signs. Far longer than any
/// replica or API server needs to notice.
pub(crate) const OVERLAP: Duration = Duration::from_secs(60 * 60);
/// Races that are lost in a row before the caller gets an error.
const MOST_RACES: usize = 5;

const CERT: &str = "ca.crt";
const KEY: &str = "ca.key";
const NEXT_CERT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const PREVIOUS_CERT: &str = "previous.crt";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("Secret {INJECTOR_CA_SECRET} could not be read or written")]
    Api(#[from] kube::Error),
    #[error("an authority could not be made")]
    Generate(#[from] BadAuthority),
    #[error("Secret {INJECTOR_CA_SECRET} changed {MOST_RACES} times while it was written")]
    Races,
}

/// What the Secret holds.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Signs.
    pub(crate) current: Root,
    /// Trusted already, will sign.
    next: Option<Root>,
    /// Signed until the last rotation, in PEM.
    previous: Option<String>,
}

/// What has to be done about an authority at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    /// Two thirds of its life are over: make the next one trusted.
    Prepare,
    /// The next one was trusted for long enough: let it sign.
    Promote,
    /// Too late for a step: it has ended (the cluster was off for months), or the clock
    /// was ahead when it was made and has been put right.
    Replace,
}

impl Authority {
    fn generate(now: SystemTime) -> Result<Self, BadAuthority> {
        Ok(Self {
            current: Root::generate(now, LIFE)?,
            next: None,
            previous: None,
        })
    }

    /// Everything that is trusted, in PEM: what belongs into `caBundle`.
    pub(crate) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(Root::cert_pem);
        let mut bundle = String::new();
        for pem in [
            Some(self.current.cert_pem()),
            next,
            self.previous.as_deref(),
        ] {
            let pem = pem.unwrap_or_default().trim();
            if !pem.is_empty() {
                bundle.push_str(pem);
                bundle.push('\n');
            }
        }
        bundle
    }

    fn step(&self, now: SystemTime) -> Step {
        let trusted_since = |root: &Root| root.not_before() + BACKDATE;
        if now >= self.current.not_after() || now < self.current.not_before() {
            return Step::Replace;
        }
        match &self.next {
            Some(next) if now >= trusted_since(next) + OVERLAP => Step::Promote,
            Some(_) => Step::Keep,
            None => {
                let issued = trusted_since(&self.current);
                let due = identity::rotate::renew_issuer_at(issued, self.current.not_after());
                if now >= due {
                    Step::Prepare
                } else {
                    Step::Keep
                }
            }
        }
    }

    fn take(self, step: Step, now: SystemTime) -> Result<Self, BadAuthority> {
        match (step, self.next) {
            // A replica whose clock is still ahead may serve by it.
            (Step::Replace, _) if now < self.current.not_after() => Ok(Self {
                previous: Some(self.current.cert_pem().to_owned()),
                ..Self::generate(now)?
            }),
            (Step::Replace, _) => Self::generate(now),
            (Step::Prepare, _) => Ok(Self {
                next: Some(Root::generate(now, LIFE)?),
                ..self
            }),
            (Step::Promote, Some(next)) => Ok(Self {
                previous: Some(self.current.cert_pem().to_owned()),
                current: next,
                next: None,
            }),
            (Step::Keep | Step::Promote, next) => Ok(Self { next, ..self }),
        }
    }

    fn load(secret: &Secret) -> Result<Self, BadAuthority> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
        };
        let required = |key: &str| text(key).ok_or(BadAuthority::Certificate);
        let next = match (text(NEXT_CERT), text(NEXT_KEY)) {
            (Some(cert), Some(key)) => Some(Root::from_pem(&cert, &key)?),
            _ => None,
        };
        Ok(Self {
            current: Root::from_pem(&required(CERT)?, &required(KEY)?)?,
            next,
            previous: text(PREVIOUS_CERT),
        })
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: &str| {
            data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        put(CERT, self.current.cert_pem());
        put(KEY, &self.current.key_pem());
        if let Some(next) = &self.next {
            put(NEXT_CERT, next.cert_pem());
            put(NEXT_KEY, &next.key_pem());
        }
        if let Some(previous) = &self.previous {
            put(PREVIOUS_CERT, previous);
        }
        data
    }
}

/// The authority as it is kept in the cluster.
#[derive(Clone)]
pub(crate) struct Store {
    secrets: Api<Secret>,
}

/// What a look into the store found.
#[derive(Debug)]
pub(crate) struct StoredAuthority {
    pub(crate) authority: Authority,
    /// Whether this replica changed it.
    pub(crate) changed: bool,
}

impl Store {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client, namespace),
        }
    }

    /// The authority that holds at `now`: made when there is none, moved one step when
    /// one is due.
    pub(crate) async fn authority(
        &self,
        now: SystemTime,
    ) -> Result<StoredAuthority, AuthorityError> {
        for _ in 0..MOST_RACES {
            let Some(secret) = self.secrets.get_opt(INJECTOR_CA_SECRET).await? else {
                let authority = Authority::generate(now)?;
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(INJECTOR_CA_SECRET.to_owned()),
                        ..ObjectMeta::default()
                    },
                    data: Some(authority.data()),
                    ..Secret::default()
                };
                match self.secrets.create(&PostParams::default(), &secret).await {
                    Ok(_) => {
                        info!("webhook authority made");
                        return Ok(StoredAuthority {
                            authority,
                            changed: true,
                        });
                    }
                    Err(error) if is_conflict(&error) => continue,
                    Err(error) => return Err(error.into()),
                }
            };
            let authority = match Authority::load(&secret) {
                Ok(authority) => match authority.step(now) {
                    Step::Keep => {
                        return Ok(StoredAuthority {
                            authority,
                            changed: false,
                        });
                    }
                    step => {
                        info!(?step, "webhook authority moves on");
                        authority.take(step, now)?
                    }
                },
                Err(error) => {
                    // Nothing but these webhooks trusts it, so a new one loses nothing.
                    warn!(%error, "webhook authority cannot be read and is made anew");
                    Authority::generate(now)?
                }
            };
            let secret = Secret {
                data: Some(authority.data()),
                string_data: None,
                ..secret
            };
            let written = self
                .secrets
                .replace(INJECTOR_CA_SECRET, &PostParams::default(), &secret)
                .await;
            match written {
                Ok(_) => {
                    return Ok(StoredAuthority {
                        authority,
                        changed: true,
                    });
                }
                Err(error) if is_conflict(&error) || is_gone(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AuthorityError::Races)
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests;
