//! Which packets are redirected, and which are left alone.

use super::*;

fn rules(chain: &str, settings: &Settings) -> Vec<Rule> {
    plan(settings, Forwarded::Pass)
        .into_iter()
        .find(|c| c.name == chain)
        .unwrap()
        .rules
}

#[test]
fn whatever_no_rule_exempts_is_redirected() {
    let settings = Settings::default();
    let last = |chain| rules(chain, &settings).pop().unwrap();
    assert_eq!(last("output"), rule([], PacketVerdict::Redirect(15101)));
    assert_eq!(last("prerouting"), rule([], PacketVerdict::Redirect(15106)));
}

#[test]
fn every_rule_but_the_last_leaves_traffic_alone() {
    let settings = Settings::default();
    for chain in plan(&settings, Forwarded::Pass) {
        let (_, exemptions) = chain.rules.split_last().unwrap();
        assert!(
            exemptions
                .iter()
                .all(|rule| rule.then == PacketVerdict::Return && !rule.when.is_empty())
        );
    }
}

#[test]
fn own_ports_are_exempt_inbound_only() {
    let settings = Settings::default();
    for port in [15101, 15106, 15108, 15190] {
        let exemption = rule([Match::PortBetween(port, port)], PacketVerdict::Return);
        assert!(rules("prerouting", &settings).contains(&exemption));
        assert!(!rules("output", &settings).contains(&exemption));
    }
}

#[test]
fn forwarded_packets_pass_inbound_only_where_the_kernel_knows() {
    let settings = Settings::default();
    let exemption = rule([Match::NotForUs], PacketVerdict::Return);
    for (forwarded, expected) in [
        (Forwarded::Pass, vec!["prerouting"]),
        (Forwarded::Redirected, vec![]),
    ] {
        let chains = plan(&settings, forwarded).into_iter();
        let with = chains.filter(|chain| chain.rules.contains(&exemption));
        let names: Vec<_> = with.map(|chain| chain.name).collect();
        assert_eq!(names, expected);
    }
}
