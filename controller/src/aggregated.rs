//! What every aggregated API needs: proof that the API server calls and on whose behalf,
//! whether that user may, and a certificate that the API server trusts.
//!
//! May import `apiserver` and `authority`. It names no API: what it is to serve is told.

pub(crate) mod access;
pub(crate) mod certificate;
pub(crate) mod front_proxy;
