//! The content of the authority's Secret as this replica has parsed and loaded it: roots, issuer,
//! state of the rotation.

use std::collections::BTreeMap;
use std::time::SystemTime;

use identity::authority::BadAuthority;
use identity::rotation::{Source, State};
use identity::verify::AuthorityId;
use identity::{Issuer, Root, Roots};
use k8s_openapi::ByteString;
use policy::name::SpiffeId;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tracing::warn;

use super::brought::Brought;
use super::secret::{
    self, ApiRoot, CaError, ISSUER_CRT, ISSUER_KEY, OutsideLife, ROOT_CRT, root_with_key, text,
};

pub(super) struct Loaded {
    pub(super) roots_pem: String,
    /// Absent when the root was brought without its key.
    pub(super) root: Option<Root>,
    pub(super) issuer: Issuer,
    /// The root that an issuer of this replica's folder is below. None: the Secret has the issuer.
    pub(super) own: Option<AuthorityId>,
    pub(super) api: Option<ApiRoot>,
    pub(super) data: BTreeMap<String, ByteString>,
    pub(super) roots_der: Vec<Vec<u8>>,
    pub(super) state: State,
    /// When this step was loaded.
    pub(super) since: Instant,
}

// Its content holds keys.
opaque_debug!(Loaded);

impl Loaded {
    pub(super) fn from_data(
        data: BTreeMap<String, ByteString>,
        own: &SpiffeId,
        brought: &Brought,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let roots_pem = text(&data, ROOT_CRT)?.to_owned();
        let roots = Roots::from_pem(own, &roots_pem)?;
        let (issuer, below) = match of_files(&data) {
            Some(stored) => {
                let (issuer, root) = brought.signer(&described(stored, &roots.ids()), now)?;
                (issuer, Some(root))
            }
            None => {
                let issuer = Issuer::from_pem(text(&data, ISSUER_CRT)?, text(&data, ISSUER_KEY)?)?;
                if let Some(outside) = OutsideLife::of(&issuer, now) {
                    return Err(CaError::OutsideLife(outside));
                }
                (issuer, None)
            }
        };
        issuer.prove(&roots, now)?;
        let root = root_with_key(&data, &roots_pem)?;
        // Without it the mesh goes on, and the Lease holder makes another one.
        let api = ApiRoot::from_data(&data, own).unwrap_or_else(|error| {
            warn!(%error, "the root of the aggregated APIs is not usable");
            None
        });
        let roots = match below {
            // A replica may sign below the next root; the first one is that of all.
            Some(_) => roots.certificates(),
            None => signing_first(&roots, &issuer, own, now),
        };
        let ids: Vec<AuthorityId> = roots.iter().filter_map(AuthorityId::of_der).collect();
        let stored = secret::stored(&data).filter(|stored| stored.describes(&ids));
        let state = match stored.filter(|_| below.is_some()) {
            // The Lease holder writes which issuers the folders hold.
            Some(stored) => stored,
            None => secret::state(&data, &ids, &issuer).ok_or(BadAuthority::Certificate)?,
        };
        let roots_der = roots.iter().map(|root| root.to_vec()).collect();
        Ok(Self {
            roots_pem,
            root,
            issuer,
            own: below,
            api,
            data,
            roots_der,
            state,
            since: Instant::now(),
        })
    }

    /// Whether the folder has another issuer than the one that signs.
    pub(super) fn is_outdated(&self, brought: &Brought, now: SystemTime) -> bool {
        let chosen = brought.chosen(&self.state, now);
        let chosen = chosen.filter(|_| self.own.is_some());
        chosen.is_some_and(|chosen| chosen.issuer.cert_pem() != self.issuer.cert_pem())
    }

    /// What this replica's folder signs with, below the first root.
    pub(super) fn own_issuer(&self) -> Option<&CertificateDer<'static>> {
        let is_first = self.own.is_some() && self.own == self.state.active();
        is_first.then(|| self.issuer.certificate())
    }

    pub(super) fn api_bundle(&self) -> String {
        match &self.api {
            Some(api) => format!("{}\n{}", api.pem.trim_end(), self.roots_pem),
            None => self.roots_pem.clone(),
        }
    }
}

/// The state of a content whose issuers are files.
fn of_files(data: &BTreeMap<String, ByteString>) -> Option<State> {
    let stored = secret::stored(data).filter(|state| state.source == Source::Files);
    stored.filter(|_| !data.contains_key(ISSUER_KEY))
}

/// As [`secret::state`] has it, of a content without an issuer.
fn described(stored: State, roots: &[AuthorityId]) -> State {
    match stored.describes(roots) {
        true => stored,
        false => State {
            roots: roots.to_vec(),
            rotation: None,
            ..stored
        },
    }
}

/// The roots, first the one that the issuer is below. A person may have written them in any order,
/// and proxies renew what is not below the first one.
fn signing_first(
    roots: &Roots,
    issuer: &Issuer,
    own: &SpiffeId,
    now: SystemTime,
) -> Vec<CertificateDer<'static>> {
    let mut roots = roots.certificates();
    let signs = |root: &CertificateDer<'static>| {
        let alone = Roots::new(own, vec![root.clone()]);
        alone.is_ok_and(|alone| issuer.prove(&alone, now).is_ok())
    };
    if let Some(at) = roots.iter().position(signs) {
        roots[..=at].rotate_right(1);
    }
    roots
}
