//! Takes the blanks off the ends of field values.
//!
//! HTTP/2 forbids a value that begins or ends with a blank or a tab (RFC 9113, 8.2.1), and `h2`
//! hands it over as it came. Passed on it would cost others their calls: some servers and clients,
//! those built on Python's h2 among them, end the whole connection for one, and a connection is
//! shared. Trimmed and not refused, because the blanks mean nothing: they are no part of a value
//! (RFC 9110, 5.5), HTTP/1.1 reads it without them, and gRPC allows to strip them. So rules see the
//! same value by either version as well.
//!
//! Whatever comes by HTTP/2 passes here before it is read, heads and trailers, of requests and
//! answers. What comes by HTTP/1.1 is trimmed by the parser of hyper.

use http::{HeaderMap, HeaderValue};

/// Looks at the first and the last byte of each value, and copies those that change.
pub(super) fn trim(map: &mut HeaderMap) {
    for value in map.values_mut() {
        if !matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            continue;
        }
        // A part of a value is one.
        if let Ok(mut trimmed) = HeaderValue::from_bytes(value.as_bytes().trim_ascii()) {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_value_loses_only_surrounding_blanks() {
        for (came, left) in [
            ("a", "a"),
            (" a", "a"),
            ("a ", "a"),
            ("\ta", "a"),
            ("a\t", "a"),
            (" \t a\t b \t ", "a\t b"),
            (" ", ""),
            ("\t", ""),
            ("", ""),
        ] {
            let mut map = HeaderMap::new();
            for name in ["x", "y"] {
                map.append(name, HeaderValue::from_static("1"));
                map.append(name, HeaderValue::from_static(came));
            }
            trim(&mut map);
            for name in ["x", "y"] {
                let values: Vec<&HeaderValue> = map.get_all(name).iter().collect();
                assert_eq!(values, ["1", left], "{came:?}");
            }
        }
        let mut map = HeaderMap::new();
        let mut secret = HeaderValue::from_bytes(b" \xffa ").unwrap();
        secret.set_sensitive(true);
        map.insert("x", secret);
        trim(&mut map);
        assert_eq!(map["x"].as_bytes(), b"\xffa");
        assert!(map["x"].is_sensitive());
    }
}
