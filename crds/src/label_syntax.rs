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
