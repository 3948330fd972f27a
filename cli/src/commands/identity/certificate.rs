//! Parses a certificate: identity, serial number, issuer and validity.

use std::time::{Duration, SystemTime};

use crds::observe::ProxyStatus;
use k8s_openapi::jiff::Timestamp;
use policy::well_known::BACKDATE;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Share of the time from its issue to its end, in percent, after which a proxy renews its
/// certificate at the earliest.
const RENEWED_AT: u64 = 60;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Certificate {
    /// SPIFFE id; of an authority its name.
    pub(super) identity: String,
    pub(super) serial: String,
    pub(super) issuer: String,
    /// Seconds since 1970; missing in controllers' reports of an older proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<u64>,
    /// Seconds since 1970.
    pub(super) not_after: u64,
    /// It signs others.
    pub(super) authority: bool,
    /// What signed it, in 32 hex digits, since authorities may share a name; missing where that is
    /// not shown, and in controllers' reports of an older proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signer: Option<String>,
    /// Of an authority: what it is in `signer` of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signs_as: Option<String>,
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
            signer: None,
            signs_as: read.is_ca().then(|| authority_id(&read)),
        })
    }

    pub(super) fn ends(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.not_after)
    }

    /// As the proxy reported it to a controller: all but the identity, which is the one that the
    /// proxy has to have.
    pub(super) fn reported(status: &ProxyStatus) -> Option<Self> {
        let certificate = status.certificate.as_ref()?;
        let seconds = |text: &str| {
            let time: Timestamp = text.parse().ok()?;
            u64::try_from(time.as_second()).ok()
        };
        let issued = certificate.issued.as_deref().and_then(seconds);
        Some(Self {
            identity: status.identity.clone(),
            serial: certificate.serial.clone(),
            issuer: certificate.issuer.clone(),
            not_before: issued.map(|issued| issued.saturating_sub(BACKDATE.as_secs())),
            not_after: seconds(&certificate.not_after)?,
            authority: false,
            signer: certificate.authority.clone(),
            signs_as: None,
        })
    }

    /// When its proxy requests the next one at the earliest; none if no proxy renews it, or it is
    /// not known when it was issued.
    pub(super) fn renewed(&self) -> Option<SystemTime> {
        let begins = self.not_before.filter(|_| !self.authority)?;
        // It lives from its issue on: of one that lasts a minute the five before that are most.
        let issued = begins.saturating_add(BACKDATE.as_secs());
        let life = self.not_after.saturating_sub(issued);
        let at = issued.saturating_add(life.saturating_mul(RENEWED_AT) / 100);
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
    }
}

/// The first half of the SHA-256 of an authority's name and key, as proxies report it.
fn authority_id(read: &X509Certificate<'_>) -> String {
    let mut hash = Sha256::new();
    hash.update(read.subject().as_raw());
    hash.update(read.public_key().raw);
    let hash = hash.finalize();
    let half = hash[..16].iter();
    half.map(|byte| format!("{byte:02x}")).collect()
}

/// The certificates of a proxy's chain, its own first: each is signed by the next one.
pub(super) fn in_chain(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let mut chain = in_pem(pem)?;
    let behind = chain.iter().skip(1).map(|next| next.signs_as.clone());
    let signers: Vec<Option<String>> = behind.collect();
    for (one, signer) in chain.iter_mut().zip(signers) {
        one.signer = signer;
    }
    Ok(chain)
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUHKthaeFgtwcAwUj88iim/EI/whUwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFbXktY2EwHhcNMjYxMTMwMDEyMzA3WhcNMzYxMTI3MDEyMzA3
WjAQMQ4wDAYDVQQDDAVteS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGEE
j9UuPLJmXitDqBDcinLOSIX+FZ9Vdb5OE+3a7Ul+EbH1tKUYCK9cdSRHwbE3L+Ef
WcWK4cSSZwgCnf93RTKjUzBRMB0GA1UdDgQWBBS8z/QJS00jx1qh8CaZZTyY9wY9
AzAfBgNVHSMEGDAWgBS8z/QJS00jx1qh8CaZZTyY9wY9AzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQCNDseyzcVBuEC02B1+fBQ/FYvAQXAhgDBv
b6Y4cqdWwgIhAL5KY3c1kTyVvPpCEq676jYuFV82YHVjf0rtr7Rj7hY6
-----END CERTIFICATE-----";

    /// Proxies report the same of it.
    #[test]
    fn authority_is_shown_as_proxies_report_it() {
        let twice = format!("{ROOT}\n{ROOT}\n");
        let chain = in_chain(twice.as_bytes()).unwrap();
        let expected = Some("78c3b8c7c9a0b582d49c5f87098d668e".to_owned());
        assert_eq!(chain[0].signs_as, expected);
        assert_eq!((&chain[0].signer, &chain[1].signer), (&expected, &None));
    }

    /// Issued at 1 000 000 000, for so many seconds, as it is presented.
    fn presented(life: u64) -> Certificate {
        let issued = 1_000_000_000;
        Certificate {
            identity: String::new(),
            serial: String::new(),
            issuer: String::new(),
            not_before: Some(issued - BACKDATE.as_secs()),
            not_after: issued + life,
            authority: false,
            signer: None,
            signs_as: None,
        }
    }

    #[test]
    fn certificate_is_renewed_at_sixty_percent_of_lifetime() {
        for (life, renewed) in [(60, 36), (900, 540), (86_400, 51_840), (0, 0)] {
            let at = Duration::from_secs(1_000_000_000 + renewed);
            let certificate = presented(life);
            assert_eq!(
                certificate.renewed(),
                Some(SystemTime::UNIX_EPOCH + at),
                "{life}"
            );
        }
        let issue_unknown = Certificate {
            not_before: None,
            ..presented(60)
        };
        assert_eq!(issue_unknown.renewed(), None);
        let authority = Certificate {
            authority: true,
            ..presented(60)
        };
        assert_eq!(authority.renewed(), None, "no proxy renews it");
    }

    #[test]
    fn reported_certificate_is_renewed_when_its_proxy_renews() {
        let certificate_issued = |issued: Option<&str>| crds::observe::Certificate {
            issued: issued.map(str::to_owned),
            not_after: "2001-09-10T01:46:40Z".to_owned(),
            ..crds::observe::Certificate::default()
        };
        let reported = |issued| {
            let status = ProxyStatus {
                certificate: Some(certificate_issued(issued)),
                ..ProxyStatus::default()
            };
            Certificate::reported(&status).unwrap()
        };
        assert_eq!(reported(Some("2001-09-09T01:46:40Z")), presented(86_400));
        for issued in [None, Some("yesterday")] {
            let undated = reported(issued);
            assert_eq!((undated.not_before, undated.renewed()), (None, None));
            assert_eq!(undated.not_after, 1_000_086_400);
        }
    }
}
