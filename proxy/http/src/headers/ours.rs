//! The mesh's own headers, and which of them a sender may set.
//!
//! Claims: attack-62

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use policy::context::Id;
use policy::traffic::guard::Priority;

use crate::header_names::{
    ATTEMPT, CLIENT_ADDRESS, CONTEXT, DESTINATION, DESTINATION_POD, PRIORITY, REST, SHADOW, TIMEOUT,
};
use crate::route_override::OverrideHeaders;
use crate::shadow::Shadow;

/// Many applications read whatever in a name is neither letter nor digit as `_`, as CGI did.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str().as_bytes(),
        [b'w', b'e', b'f', b't', mark, ..] if !mark.is_ascii_alphanumeric()
    )
}

/// The headers of ours that some senders may set.
#[derive(Debug, Default)]
pub struct Ours {
    /// Of time. On the heap, because most have none.
    pub times: Option<Box<Times>>,
    /// The parent request. A value that names none has no meaning.
    pub context: Option<Id>,
    /// The max class of the request. A value that is none has no meaning.
    pub priority: Option<Priority>,
    /// It is sent again.
    pub retry: bool,
    /// Of copies.
    pub shadow: Option<Shadow>,
    /// Of the client of a Gateway. A value that is none has no meaning.
    pub client_address: Option<IpAddr>,
    /// Of where calls are to go. On the heap, because hardly any has one.
    pub route_override: Option<Box<OverrideHeaders>>,
}

/// The times in headers of ours.
#[derive(Debug, Default)]
pub struct Times {
    /// What is left of its own,
    pub timeout: Option<HeaderValue>,
    /// and of that of what it is made for.
    pub rest: Option<HeaderValue>,
    /// It was sent to a pod by its own address, so no policy limits how long it may take.
    pub unlimited: bool,
}

/// Removes every header that starts with `weft-`, or with another mark behind `weft`: no other
/// sender may set them. Those that some senders may set come back.
pub fn strip_ours(map: &mut HeaderMap) -> Ours {
    let names: Vec<HeaderName> = map.keys().filter(|name| is_ours(name)).cloned().collect();
    let mut ours = Ours::default();
    for name in names {
        if OverrideHeaders::take(map, &name, &mut ours.route_override) {
            continue;
        }
        let Some(value) = map.remove(&name) else {
            continue;
        };
        if name == TIMEOUT {
            ours.times.get_or_insert_default().timeout = Some(value);
        } else if name == REST {
            ours.times.get_or_insert_default().rest = Some(value);
        } else if name == DESTINATION && value == DESTINATION_POD {
            ours.times.get_or_insert_default().unlimited = true;
        } else if name == CONTEXT {
            ours.context = Id::parse(value.as_bytes());
        } else if name == PRIORITY {
            ours.priority = Priority::parse(value.as_bytes());
        } else if name == SHADOW {
            ours.shadow = Some(Shadow::of_peer(&value));
        } else if name == ATTEMPT {
            ours.retry = true;
        } else if name == CLIENT_ADDRESS {
            ours.client_address = address(&value);
        }
    }
    ours
}

fn address(value: &HeaderValue) -> Option<IpAddr> {
    let address: IpAddr = value.to_str().ok()?.parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn forged_mesh_headers_are_removed() {
        let mut headers = map(&[
            ("weft-client-id", "spiffe://x"),
            ("weft-new", "1"),
            ("weft-spent", "1"),
            ("x", "1"),
        ]);
        let ours = strip_ours(&mut headers);
        assert_eq!(headers, map(&[("x", "1")]));
        assert!(ours.times.is_none() && ours.context.is_none() && !ours.retry);
    }

    #[test]
    fn stripping_returns_priority_of_mesh_headers() {
        let priority_of = |priority| {
            let mut headers = map(&[("weft-priority", priority), ("x", "1")]);
            let ours = strip_ours(&mut headers);
            assert_eq!(headers, map(&[("x", "1")]));
            assert!(!ours.retry);
            ours.priority
        };
        assert_eq!(priority_of("sheddable"), Some(Priority::Sheddable));
        assert_eq!(priority_of("High"), None);
        let ours = strip_ours(&mut map(&[
            ("weft-attempt", "2"),
            ("weft_priority", "Normal"),
        ]));
        assert!(ours.retry && ours.priority.is_none());
    }

    #[test]
    fn stripping_returns_timeouts_and_context_of_mesh_headers() {
        let mut headers = map(&[
            ("weft-timeout", "5ms"),
            ("weft-rest", "7ms"),
            ("weft-context", "0123456789abcdef"),
            ("x", "1"),
        ]);
        let ours = strip_ours(&mut headers);
        assert_eq!(headers, map(&[("x", "1")]));
        let times = ours.times.unwrap();
        assert_eq!(times.timeout.unwrap(), "5ms");
        assert_eq!(times.rest.unwrap(), "7ms");
        assert_eq!(ours.context, Id::parse(b"0123456789abcdef"));
        let none = strip_ours(&mut map(&[("weft-context", "x"), ("weft_rest", "7ms")]));
        assert!(none.context.is_none() && none.times.is_none());
    }

    #[test]
    fn client_address_is_an_address_or_nothing() {
        let read = |value| strip_ours(&mut map(&[("weft-client-address", value)])).client_address;
        let address = IpAddr::from([203, 0, 113, 7]);
        assert_eq!(read("203.0.113.7"), Some(address));
        assert_eq!(read("::ffff:203.0.113.7"), Some(address));
        for none in ["", "203.0.113.7:80", "a", "203.0.113.7, 10.0.0.1"] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }

    #[test]
    fn only_exact_pod_destination_value_means_no_policy() {
        let mut headers = map(&[("weft-destination", "pod"), ("x", "1")]);
        let times = strip_ours(&mut headers).times.unwrap();
        assert!(times.unlimited && times.timeout.is_none() && times.rest.is_none());
        assert_eq!(headers, map(&[("x", "1")]));
        for (name, value) in [("weft-destination", "later"), ("weft_destination", "pod")] {
            assert!(strip_ours(&mut map(&[(name, value)])).times.is_none());
        }
    }

    #[test]
    fn what_some_senders_may_say_comes_back() {
        for (value, shadow) in [
            ("true", Shadow::Any),
            ("read-only", Shadow::ReadOnly),
            ("of a later version", Shadow::ReadOnly),
        ] {
            let mut headers = map(&[("weft-shadow", value), ("weft-timeout", "5ms"), ("x", "1")]);
            let ours = strip_ours(&mut headers);
            assert_eq!(ours.shadow, Some(shadow), "{value}");
            assert_eq!(ours.times.unwrap().timeout.unwrap(), "5ms");
            assert_eq!(headers, map(&[("x", "1")]));
        }
        let other = strip_ours(&mut map(&[("weft_shadow", "true")]));
        assert_eq!(other.shadow, None);
    }

    #[test]
    fn mesh_header_with_other_hyphen_character_is_stripped() {
        for mark in (0..=u8::MAX).map(char::from) {
            for name in [
                format!("weft{mark}client-id"),
                format!("Weft{mark}client{mark}id"),
            ] {
                // Others are no names of headers.
                let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
                    continue;
                };
                let mut headers = map(&[("weft", "1"), ("weftage", "1"), ("x-weft-a", "1")]);
                let others = headers.clone();
                headers.append(name.clone(), HeaderValue::from_static("spiffe://x"));
                let ours = strip_ours(&mut headers);
                assert_eq!(
                    headers.contains_key(&name),
                    mark.is_ascii_alphanumeric(),
                    "{name}"
                );
                headers.remove(&name);
                assert_eq!(headers, others, "{name}");
                assert!(ours.times.is_none() && ours.context.is_none(), "{name}");
            }
        }
    }
}
