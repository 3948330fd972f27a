//! Which headers of live requests a change may look at.
//!
//! The results of rules that are only tried reveal whether a pattern fits a header's value, so a
//! few dry runs would read the value out. No other user sees anything of that, unlike rules that
//! are applied.

use std::collections::BTreeSet;

use policy::access::Access;
use policy::well_known::SECRET_HEADERS;

/// Why these rules are not tried for a user who may see requests one by one, or may not;
/// `shown`: headers that a tap may show.
pub(super) fn objection(
    access: &Access,
    may_tap: bool,
    shown: &BTreeSet<String>,
) -> Option<String> {
    let names = access.header_names();
    let mut secret = names.iter().filter(|name| is_secret(name));
    if let Some(name) = secret.next() {
        return Some(format!(
            "their rules look at header {name}, which proves the identity of a caller"
        ));
    }
    let mut others = names.iter().filter(|name| !shown.contains(*name));
    let other = others.next().filter(|_| !may_tap)?;
    Some(format!(
        "their rules look at header {other}, which takes the right to get and create taps there"
    ))
}

fn is_secret(name: &str) -> bool {
    SECRET_HEADERS.contains(&name)
}
