//! The names of the mesh's own headers, and which part sends them to which. Readers and writers
//! take the names from here; the meaning of a header is documented where it is read.
//!
//! This file lies beside the folders that use it, and below all: `http` removes these headers from
//! messages and knows no peers, and `mesh::protocol` defines what two peers exchange.

use http::header::HeaderName;

/// Verified SPIFFE id of the caller, for the application.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("weft-client-id");
/// What is left of a request's time. From an application or a peer proxy it only shortens.
pub const TIMEOUT: HeaderName = HeaderName::from_static("weft-timeout");
/// Between proxies: what is left of the time of the request that a call is made for.
pub const REST: HeaderName = HeaderName::from_static("weft-rest");
/// Between proxies: what its caller called, where that is no Service: [`DESTINATION_POD`].
pub const DESTINATION: HeaderName = HeaderName::from_static("weft-destination");
/// A pod by its own address, so that no policy applies before its own proxy's.
pub const DESTINATION_POD: &str = "pod";
/// The name of a request, which its application passes on with the calls that it makes for
/// it.
pub const CONTEXT: HeaderName = HeaderName::from_static("weft-context");
/// The class of a request. From an application or a peer proxy it only lowers.
pub const PRIORITY: HeaderName = HeaderName::from_static("weft-priority");
/// Between proxies: which attempt of its call a request is, where it is not the first.
pub const ATTEMPT: HeaderName = HeaderName::from_static("weft-attempt");
/// A request is a copy, or made for one. Between proxies it also holds the limits for its receiver.
pub const SHADOW: HeaderName = HeaderName::from_static("weft-shadow");
/// Between proxies: the address of the client that a Gateway passes a request on for.
pub const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("weft-client-address");
/// Which calls are to go elsewhere.
pub const ROUTE: HeaderName = HeaderName::from_static("weft-route");
/// A secret whose hash a policy lists.
pub const TOKEN: HeaderName = HeaderName::from_static("weft-route-token");
/// Between proxies: the right of an override, and the proxies that passed it on.
pub const PROOF: HeaderName = HeaderName::from_static("weft-proof");

/// In an answer to a peer proxy: what it needed was tried again in vain already.
pub const SPENT: HeaderName = HeaderName::from_static("weft-spent");
/// In an answer to a peer proxy: how busy the application is, from 0 to 100.
pub const LOAD: HeaderName = HeaderName::from_static("weft-load");
/// In an answer: the Service that the call went to by its override; `namespace/name`.
pub const ROUTED_TO: HeaderName = HeaderName::from_static("weft-routed-to");
/// Why the mesh answered instead of the application.
pub const REASON: HeaderName = HeaderName::from_static("weft-reason");
/// Which Service answered in place of the one that was called, as `namespace/name`, or
/// [`FIXED_RESPONSE`].
pub const DEGRADED: HeaderName = HeaderName::from_static("weft-degraded");
/// A TrafficPolicy itself did.
pub const FIXED_RESPONSE: &str = "response";

/// In a response: the FaultExperiment that harmed the call, as `namespace/name`.
pub const FAULT: HeaderName = HeaderName::from_static("weft-fault");

// What carries a message between two proxies. None of these ever reaches an application.
/// Container port that a request is for.
pub const PORT: HeaderName = HeaderName::from_static("weft-port");
/// How the application is to be spoken to: `http1`, `http2`, or `tcp` for bytes.
pub const PROTOCOL: HeaderName = HeaderName::from_static("weft-protocol");
/// Of a request whose target its caller wrote as a whole address, as to a forward proxy: the
/// scheme of that.
pub const SCHEME: HeaderName = HeaderName::from_static("weft-scheme");
/// Of a call that a proxy hands over to a Gateway, which is to let it out of the mesh: the
/// ExternalService that gives it, as `namespace/name`.
pub const EXTERNAL: HeaderName = HeaderName::from_static("weft-external");
/// Of such a call: the host to one of whose addresses it goes, or the address.
pub const EXTERNAL_TO: HeaderName = HeaderName::from_static("weft-external-to");
/// Of an upgrade: the protocols that the caller offers, and in the answer the one that the
/// application switched to.
pub const UPGRADE_TO: HeaderName = HeaderName::from_static("weft-upgrade");
/// Of an upgrade: the request target.
pub const TARGET: HeaderName = HeaderName::from_static("weft-target");
/// Of an upgrade by POST: how many of the first bytes of its stream are the request's body.
pub const BODY: HeaderName = HeaderName::from_static("weft-body");
/// Of an upgrade: the status that the application answered.
pub const STATUS: HeaderName = HeaderName::from_static("weft-status");
/// In an answer: no application saw the request. It is also sent where no head is read.
pub const UNSENT: HeaderName = HeaderName::from_static("weft-unsent");
