//! What stands in a certificate.

use std::time::{Duration, SystemTime};

use crds::observe::ProxyStatus;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Share of its life, in percent, after which a proxy renews its certificate at the
/// earliest.
const RENEWED_AT: u64 = 60;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Certificate {
    /// SPIFFE id; of an authority its name.
    pub(super) identity: String,
    pub(super) serial: String,
    pub(super) issuer: String,
    /// Seconds since 1970; not told by controllers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<u64>,
    /// Seconds since 1970.
    pub(super) not_after: u64,
    /// It signs others.
    pub(super) authority: bool,
}

impl Certificate {
    /// Reads DER.
    pub(super) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, read) =
            X509Certificate::from_der(der).map_err(|error| format!("no certificate: {error}"))?;
        let names = read.subject_alternative_name().ok().flatten();
        let uris = names.iter().flat_map(|names| &names.value.general_names);
        let uri = uris.into_iter().find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
        Ok(Self {
            identity: uri.unwrap_or_else(|| read.subject().to_string()),
            serial: read.raw_serial_as_string(),
            issuer: read.issuer().to_string(),
            not_before: Some(seconds(read.validity().not_before.timestamp())),
            not_after: seconds(read.validity().not_after.timestamp()),
            authority: read.is_ca(),
        })
    }

    pub(super) fn ends(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.not_after)
    }

    /// As a controller was told of it by its proxy: all but the identity, in whose place
    /// stands the one that the proxy has to have.
    pub(super) fn reported(status: &ProxyStatus) -> Option<Self> {
        let certificate = status.certificate.as_ref()?;
        let ends: Timestamp = certificate.not_after.parse().ok()?;
        Some(Self {
            identity: status.identity.clone(),
            serial: certificate.serial.clone(),
            issuer: certificate.issuer.clone(),
            not_before: None,
            not_after: u64::try_from(ends.as_second()).ok()?,
            authority: false,
        })
    }

    /// When its proxy asks for the next one; nothing of what no proxy renews, or where it is
    /// not known when it was made.
    pub(super) fn renewed(&self) -> Option<SystemTime> {
        let begins = self.not_before.filter(|_| !self.authority)?;
        let life = self.not_after.saturating_sub(begins);
        let at = begins + life / 100 * RENEWED_AT;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
    }
}

/// All certificates of a PEM list.
pub(super) fn in_pem(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let blocks = Pem::iter_from_buffer(pem);
    let read = blocks.map(|block| {
        let block = block.map_err(|error| format!("is no PEM: {error}"))?;
        Certificate::read(&block.contents)
    });
    read.collect()
}
