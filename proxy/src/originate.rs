//! TLS that the proxy begins to servers outside the mesh, for what the application sends in plaintext.
//!
//! Each name and its authorities have connections of their own: what was proven for one is no
//! proof for another. The name and the time of a certificate are checked in every handshake, as no
//! session is resumed.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use policy::egress::{OriginateTls, Roots};
use policy::reason::Reason;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::failure::Failure;
use crate::http::client::server_stream::OriginTls;
use crate::http::client::{Clients, Servers};
use crate::net::budget::Budget;
use crate::net::connect::Connector;

/// Names whose connections are kept. One pod has 512 objects and queries 256 names.
const KNOWN: usize = 1024;

/// What every proxy speaks.
static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];

/// Those of the public web.
static PUBLIC: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
    Arc::new(roots.collect())
});

/// What a server has to prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proof {
    name: Box<str>,
    roots: Roots,
}

/// The connections of one workload that leave the mesh in TLS of its proxy.
#[derive(Debug)]
pub(crate) struct Originators {
    budget: Arc<Budget>,
    connector: Arc<Connector>,
    /// That are spoken.
    versions: &'static [&'static SupportedProtocolVersion],
    known: Mutex<HashMap<Proof, Arc<Clients>>>,
}

impl Originators {
    pub(crate) fn new(budget: Arc<Budget>, connector: Arc<Connector>) -> Self {
        Self {
            budget,
            connector,
            versions: NEWEST,
            known: Mutex::default(),
        }
    }

    /// Of a Gateway, which has to reach servers that know nothing newer than TLS 1.2. Only its program
    /// is built with that.
    pub(crate) fn of_gateway(self) -> Self {
        Self {
            versions: ALL_VERSIONS,
            ..self
        }
    }

    /// The connections to servers that prove this name.
    ///
    /// # Errors
    /// When there is no name, or no authority to believe: nothing is sent then.
    pub(crate) fn clients(
        &self,
        tls: &OriginateTls,
        name: Option<&str>,
    ) -> Result<Arc<Clients>, Failure> {
        let name = name.ok_or_else(|| {
            failed("the call names no host, and tls.serverName of its ExternalService is not set")
        })?;
        let proof = Proof {
            name: name.into(),
            roots: tls.roots.clone(),
        };
        let mut known = self.known.lock();
        if let Some(clients) = known.get(&proof) {
            return Ok(Arc::clone(clients));
        }
        if known.len() >= KNOWN {
            known.retain(|_, clients| is_used(clients));
        }
        if known.len() >= KNOWN {
            let detail = "connections in TLS to 1024 names outside the mesh are open";
            return Err(Failure::not_sent(Reason::Overload, detail));
        }
        let clients = Arc::new(self.proven_by(&proof)?);
        known.insert(proof, Arc::clone(&clients));
        Ok(clients)
    }

    fn proven_by(&self, proof: &Proof) -> Result<Clients, Failure> {
        let name = ServerName::try_from(&*proof.name)
            .map_err(|error| failed(format!("{:?}: {error}", proof.name)))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .map_err(|error| failed(error.to_string()))?;
        let roots = believed(&proof.roots).map_err(failed)?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let (budget, connector) = (Arc::clone(&self.budget), Arc::clone(&self.connector));
        let clients = Clients::new(Servers::Elsewhere, budget, connector);
        Ok(clients.over_tls(OriginTls::new(&config, name.to_owned())))
    }

    /// Closes what is idle, and forgets names without a connection.
    pub(crate) fn sweep(&self) {
        let mut known = self.known.lock();
        for clients in known.values() {
            clients.sweep();
        }
        known.retain(|_, clients| is_used(clients));
    }
}

fn is_used(clients: &Arc<Clients>) -> bool {
    Arc::strong_count(clients) > 1 || !clients.is_empty()
}

fn failed(detail: impl Into<String>) -> Failure {
    Failure::refused(Reason::TlsFailed, detail.into())
}

/// # Errors
/// What is wrong with the certificates.
fn believed(roots: &Roots) -> Result<Arc<RootCertStore>, String> {
    let pem = match roots {
        Roots::Public => return Ok(Arc::clone(&PUBLIC)),
        Roots::Pem(pem) => pem,
    };
    let bad = |error: String| format!("ca.crt of the ExternalService's tls.caRef: {error}");
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        let added = store.add(certificate);
        added.map_err(|error| bad(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(bad("no certificate".to_owned()));
    }
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn originators() -> Originators {
        Originators::new(Budget::new(1 << 20), Arc::default())
    }

    fn tls(roots: Roots) -> OriginateTls {
        OriginateTls {
            server_name: None,
            roots,
        }
    }

    #[test]
    fn unprovable_servers_get_nothing() {
        let originators = originators();
        let public = tls(Roots::Public);
        for (tls, name) in [
            (&public, None),
            (&public, Some("no name")),
            (&tls(Roots::Pem("".into())), Some("api.pay.example")),
            (
                &tls(Roots::Pem(
                    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                )),
                Some("api.pay.example"),
            ),
        ] {
            let refused = originators.clients(tls, name).unwrap_err();
            assert_eq!(refused.reason(), Reason::TlsFailed, "{refused}");
        }
    }

    #[test]
    fn connections_are_shared_by_name_and_authorities_only() {
        let originators = originators();
        let public = tls(Roots::Public);
        let of = |name| originators.clients(&public, Some(name)).unwrap();
        let first = of("api.pay.example");
        assert!(Arc::ptr_eq(&first, &of("api.pay.example")));
        assert!(!Arc::ptr_eq(&first, &of("b.pay.example")));
        assert!(first.begins_tls());
        originators.sweep();
        assert_eq!(originators.known.lock().len(), 1, "the other one is unused");
    }
}
