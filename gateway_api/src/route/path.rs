//! Validates the paths in a route: those that requests are compared with, and those that replace
//! them.

/// Characters besides letters, digits and escapes such as `%20`.
const PLAIN: &[u8] = b"-/._~!$&'()*+,;=:@";

/// What is wrong with a path that requests are compared with.
pub(super) fn problem_of_match(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("must begin with a slash");
    }
    if path.contains("//") {
        return Some("must not have two slashes side by side");
    }
    if path.to_ascii_lowercase().contains("%2f") {
        return Some("must not have a slash written as %2F");
    }
    problem_of_replacement(path)
}

/// What is wrong with a path, or the start of one, that is sent instead of what came.
pub(super) fn problem_of_replacement(path: &str) -> Option<&'static str> {
    if path
        .split('/')
        .any(|segment| [".", ".."].contains(&segment))
    {
        return Some("must not have a segment \".\" or \"..\"");
    }
    if !is_plain(path.as_bytes()) {
        return Some(
            "must consist of letters, digits, -._~!$&'()*+,;=:@, slashes and escapes such as %20",
        );
    }
    None
}

fn is_plain(mut rest: &[u8]) -> bool {
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [one, rest @ ..] if one.is_ascii_alphanumeric() || PLAIN.contains(one) => rest,
            _ => return false,
        };
    }
}
