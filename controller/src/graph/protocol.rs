//! The protocol of an edge, as the read API shows it.

use crds::observe::Protocol;
use wire::v1;

/// Of what a proxy reported; what it had not detected yet is unknown.
pub(crate) fn protocol(message: v1::Protocol) -> Protocol {
    match message {
        v1::Protocol::Detect => Protocol::Unknown,
        v1::Protocol::Http1 => Protocol::Http1,
        v1::Protocol::Http2 => Protocol::Http2,
        v1::Protocol::Grpc => Protocol::Grpc,
        v1::Protocol::Opaque => Protocol::Tcp,
        v1::Protocol::Tls => Protocol::Tls,
    }
}
