//! The status of a proxy as it was at a0db7ba5, the last version before `trusts` and `authority`.
#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::derive_partial_eq_without_eq,
    reason = "as a generator wrote it"
)]

#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ProxyStatus {
    /// Absent: the proxy has none.
    #[prost(message, optional, tag = "1")]
    pub certificate: ::core::option::Option<Certificate>,
    /// Bytes that the process holds; 0: not known.
    #[prost(uint64, tag = "2")]
    pub memory: u64,
    /// Its pod is being deleted.
    #[prost(bool, tag = "3")]
    pub draining: bool,
    /// The proxy's clock when it sent this, in milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub now: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Certificate {
    /// Bytes in hex, with colons between them.
    #[prost(string, tag = "1")]
    pub serial: ::prost::alloc::string::String,
    /// Name of the authority that signed it.
    #[prost(string, tag = "2")]
    pub issuer: ::prost::alloc::string::String,
    /// Seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub not_after: u64,
    /// When it starts to be valid, in the same unit; 0: an older proxy, which does not send it.
    #[prost(uint64, tag = "4")]
    pub not_before: u64,
}
