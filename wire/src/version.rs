//! The version of a resource: a hash of its content.
//!
//! A controller that restarts or another replica computes the same version for the same content,
//! so a proxy that reconnects is sent only what differs.

use std::fmt::Write;

use prost::Message;
use sha2::{Digest, Sha256};

use crate::v1;

/// Bytes of the hash that are kept: 64 bits, since only versions of one name are
/// ever compared with each other.
const KEPT: usize = 8;

/// Fills in `version` with the first 16 hex digits of SHA-256 over the encoded
/// content. The name is no part of it, nor is a version that was there before.
pub fn stamp(resource: v1::Resource) -> v1::Resource {
    let version = of(resource.content.as_ref());
    v1::Resource {
        version,
        ..resource
    }
}

fn of(content: Option<&v1::resource::Content>) -> String {
    let bare = v1::Resource {
        name: String::new(),
        version: String::new(),
        content: content.cloned(),
    };
    let mut version = String::with_capacity(2 * KEPT);
    for byte in &Sha256::digest(bare.encode_to_vec())[..KEPT] {
        // Writing to a String cannot fail.
        let _ = write!(version, "{byte:02x}");
    }
    version
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::resource::Content;

    fn bundle(name: &str, root: &[u8]) -> v1::Resource {
        v1::Resource {
            name: name.to_owned(),
            version: "old".to_owned(),
            content: Some(Content::Bundle(v1::Bundle {
                roots: vec![root.to_vec()],
                ..v1::Bundle::default()
            })),
        }
    }

    #[test]
    fn equal_content_has_equal_versions_whatever_it_is_called() {
        let one = stamp(bundle("a", b"root"));
        assert_eq!(one.version, stamp(bundle("b", b"root")).version);
        assert_eq!(stamp(one.clone()), one);
        assert_eq!(one.version.len(), 16);
        assert!(
            one.version
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        );
    }

    #[test]
    fn other_content_has_another_version() {
        assert_ne!(
            stamp(bundle("a", b"root")).version,
            stamp(bundle("a", b"toor")).version
        );
        let kinds = [
            Some(Content::Bundle(v1::Bundle::default())),
            Some(Content::Endpoints(v1::Endpoints::default())),
            None,
        ];
        let versions: std::collections::BTreeSet<_> = kinds
            .into_iter()
            .map(|content| {
                stamp(v1::Resource {
                    content,
                    ..v1::Resource::default()
                })
                .version
            })
            .collect();
        assert_eq!(versions.len(), 3);
    }
}
