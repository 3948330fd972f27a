//! Checks of DNS names as Kubernetes requires them (RFC 1123).

/// Whether `text` is a DNS label, as names of Services and namespaces are.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_spelt_as_label(text)
}

/// Whether an object that owns pods, or a pod, may have this name: the API server bounds the whole
/// of it, not what stands between its dots.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_spelt_as_label)
}

fn is_spelt_as_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether `text` is a DNS subdomain, dot-separated labels, as names of most objects are.
#[must_use]
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Whether `text` may be the value of a label.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

/// Whether `text` may be the key of a label: `app` or `example.com/app`.
#[must_use]
pub fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

fn is_qualified(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63
        && text.bytes().all(inner)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_are_those_of_kubernetes() {
        let longest = "a".repeat(63);
        for good in ["a", "a-b", "0", longest.as_str()] {
            assert!(is_dns_label(good) && is_dns_subdomain(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", long.as_str()] {
            assert!(!is_dns_label(bad) && !is_dns_subdomain(bad), "{bad}");
        }
        assert!(is_dns_subdomain("a.b") && !is_dns_label("a.b"));
        assert!(!is_dns_subdomain("a..b") && !is_dns_subdomain("a."));
        assert!(!is_dns_subdomain(&"a.".repeat(127)) && !is_dns_subdomain(&["a"; 128].join(".")));
    }

    #[test]
    fn label_keys_and_values_are_those_of_kubernetes() {
        let longest = "a".repeat(63);
        for good in ["app", "App_1.x-y", "0", longest.as_str()] {
            assert!(is_label_key(good) && is_label_value(good), "{good}");
        }
        assert!(is_label_key("example.com/App_1") && is_label_value(""));
        let long = "a".repeat(64);
        for bad in [
            "-a",
            "a.",
            "a b",
            "a/",
            "/a",
            "Example.com/a",
            "a/b/c",
            &long,
        ] {
            assert!(!is_label_key(bad) && !is_label_value(bad), "{bad}");
        }
        assert!(!is_label_key("") && !is_label_value("example.com/a"));
    }

    #[test]
    fn object_names_have_total_bound_not_per_label() {
        let (longest, too_long) = ("a".repeat(253), "a".repeat(254));
        for good in ["a", "web-5d8.v2", "0", longest.as_str()] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            "-a",
            "a..b",
            "Web",
            "a_b",
            "a/b",
            "a\n",
            too_long.as_str(),
        ] {
            assert!(!is_object_name(bad), "{bad}");
        }
    }
}
