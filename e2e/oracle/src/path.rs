//! The normal form of a path that rules match (M2), or that it has none.

/// Segment by segment. `None` is answered with 400.
pub(crate) fn normal(path: &str) -> Option<String> {
    if path == "*" {
        return Some("*".into());
    }
    let decoded = decoded(path)?;
    let rest = decoded.strip_prefix('/')?;
    let mut segments: Vec<&str> = Vec::new();
    let mut folder = true;
    for segment in rest.split('/') {
        folder = segment.is_empty() || segment == "." || segment == "..";
        let bare = segment.replace("%3B", ";");
        if bare.starts_with(".;") || bare.starts_with("..;") {
            return None;
        }
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let mut out: String = segments
        .iter()
        .map(|segment| format!("/{segment}"))
        .collect();
    if folder {
        out.push('/');
    }
    Some(out)
}

/// A path with escaped slashes in every way in which it can be read (M2). None where dots, a
/// backslash or another escape could be read in several ways too.
pub(crate) fn readings(path: &str) -> Vec<String> {
    let whole = path.replace("%2f", "%2F");
    if !whole.starts_with('/') || whole.contains('\\') {
        return Vec::new();
    }
    let pieces: Option<Vec<String>> = whole.split("%2F").map(decoded).collect();
    let Some(pieces) = pieces else {
        return Vec::new();
    };
    let slashes = pieces.join("/");
    let odd = |segment: &str| {
        let bare = segment.replace("%3B", ";");
        [".", ".."].contains(&segment) || bare.starts_with(".;") || bare.starts_with("..;")
    };
    if slashes.split('/').any(odd) {
        return Vec::new();
    }
    let mut all = vec![pieces.join("%2F")];
    let mut seen = 0;
    while let Some(path) = all.get(seen).cloned() {
        let bare = path.trim_start_matches('/');
        let mut read = vec![merged(&path), path.replace("%2F", "/"), format!("/{bare}")];
        if let Some(address) = path.strip_prefix("//") {
            for address in [address, bare] {
                let behind = address.split_once('/').map_or("", |(_, behind)| behind);
                read.push(format!("/{behind}"));
            }
        }
        read.retain(|one| !all.contains(one));
        all.extend(read);
        seen += 1;
    }
    all
}

fn merged(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

/// With escapes in one form and backslashes turned.
fn decoded(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut out: Vec<u8> = Vec::new();
    let mut escaped: Vec<u8> = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => out.push(b'/'),
            b'#' | b'?' | 0..=b' ' | 0x7f => return None,
            b'%' => {
                let digits = bytes.get(i + 1..i + 3)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                let digits = std::str::from_utf8(digits).ok()?.to_uppercase();
                let byte = u8::from_str_radix(&digits, 16).ok()?;
                if [0, b'/', b'\\'].contains(&byte) {
                    return None;
                }
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(byte);
                    escaped.clear();
                } else {
                    out.extend(format!("%{digits}").bytes());
                    escaped.push(byte);
                    if overlong(&escaped) {
                        return None;
                    }
                }
                i += 3;
                continue;
            }
            other => out.push(other),
        }
        escaped.clear();
        i += 1;
    }
    String::from_utf8(out).ok()
}

/// Whether the escapes so far end with more bytes than their character needs.
fn overlong(escaped: &[u8]) -> bool {
    let &[.., first, second] = escaped else {
        return false;
    };
    (0x80..0xc0).contains(&second)
        && (first == 0xc0
            || first == 0xc1
            || (first == 0xe0 && second < 0xa0)
            || (first == 0xf0 && second < 0x90))
}
