//! Decides which IP addresses may belong to a server outside the mesh at all: none that is
//! loopback, link-local or multicast, or hides such a one.

use std::net::IpAddr;

/// Whether an answer of DNS may stand outside the mesh, whatever stands in it: no address of the
/// own machine or link, of no machine or many, and none that hides an IPv4 address in IPv6. What
/// NAT64 translates (64:ff9b::/96) is as its IPv4 address, since clusters of IPv6 reach IPv4 by it.
#[must_use]
pub fn may_be_outside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            // 0/8 is this network, and 240/4 is reserved with the broadcast address.
            first != 0
                && first < 240
                && !v4.is_loopback()
                && !v4.is_link_local()
                && !v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = behind_nat64(ip) {
                return may_be_outside(v4);
            }
            let [first, ..] = v6.segments();
            // The first six segments of ::a.b.c.d and ::ffff:a.b.c.d, which hold :: and ::1 too.
            let hides_v4 = matches!(v6.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, _, _]);
            // fe80::/10.
            let is_link_local = first & 0xffc0 == 0xfe80;
            !hides_v4 && !is_link_local && !v6.is_multicast()
        }
    }
}

/// The IPv4 address that NAT64 calls for an address of its prefix 64:ff9b::/96.
#[must_use]
pub fn behind_nat64(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else {
        return None;
    };
    let [.., a, b, c, d] = v6.octets();
    let is_nat64 = matches!(v6.segments(), [0x64, 0xff9b, 0, 0, 0, 0, ..]);
    is_nat64.then(|| [a, b, c, d].into())
}
