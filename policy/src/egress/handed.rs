//! A call that a proxy hands over to an egress Gateway, and the callers whose calls a Gateway lets
//! out.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// Stands for every account of a namespace. No account has this name.
const ALL: &str = "*";

/// Those whose calls a Gateway lets out: `namespace/account`, or `namespace/*` for all accounts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalCaller {
    pub namespace: Arc<str>,
    /// `None`: every account of the namespace.
    pub account: Option<Arc<str>>,
}

/// Why a text names no callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be namespace/account, or namespace/* for all accounts")]
pub struct BadCaller;

/// A call that a proxy has handed over.
#[derive(Clone, Copy, Debug)]
pub struct HandedCall<'a> {
    /// `namespace/name` of the object.
    pub object: &'a str,
    /// Of the caller, by its certificate.
    pub namespace: &'a str,
    pub account: &'a str,
    /// That the caller's application used.
    pub port: u16,
    pub to: To<'a>,
}

/// Where a call is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// To an address of this host, as [`super::host_name`] reads it.
    Host(&'a str),
    /// To this address.
    Address(IpAddr),
}

/// Why a Gateway does not let a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHanded {
    /// No object of that name names this Gateway.
    Object,
    /// The object does not admit the caller.
    Caller,
    /// The object has no such port, or gives no such host or address there.
    Destination,
}

impl ExternalCaller {
    pub(super) fn is(&self, namespace: &str, account: &str) -> bool {
        let own = self.account.as_ref();
        *self.namespace == *namespace && own.is_none_or(|own| **own == *account)
    }
}

impl FromStr for ExternalCaller {
    type Err = BadCaller;

    fn from_str(raw: &str) -> Result<Self, BadCaller> {
        let (namespace, account) = raw.split_once('/').ok_or(BadCaller)?;
        if namespace.is_empty() || account.is_empty() || account.contains('/') {
            return Err(BadCaller);
        }
        Ok(Self {
            namespace: namespace.into(),
            account: (account != ALL).then(|| account.into()),
        })
    }
}

impl fmt::Display for ExternalCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = self.account.as_deref().unwrap_or(ALL);
        write!(f, "{}/{account}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_read_as_they_are_written() {
        for written in ["shop/web", "shop/*"] {
            let read: ExternalCaller = written.parse().unwrap();
            assert_eq!(read.to_string(), written);
        }
        for wrong in ["", "shop", "/web", "shop/", "shop/web/x", "*"] {
            assert_eq!(wrong.parse::<ExternalCaller>(), Err(BadCaller), "{wrong:?}");
        }
    }
}
