//! The settings of the redirection.

use runtime::env::EnvReader;

use crate::capture::settings::{BadArguments, MAX_NETS, Settings, Then, known_service};

fn parse(line: &str) -> Result<Settings, BadArguments> {
    Settings::from_arguments(line.split_whitespace().map(str::to_owned))
}

#[test]
fn both_spellings_of_an_option_are_understood() {
    let spaced = parse(
        "--check --skip-inbound-ports 25,3000-3010 --skip-outbound-cidrs 10.0.0.0/8,fd00::/8",
    );
    let joined = parse(
        "--check --skip-inbound-ports=25,3000-3010 --skip-outbound-cidrs=10.0.0.0/8,fd00::/8",
    );
    assert_eq!(spaced, joined);
    let settings = spaced.unwrap();
    assert_eq!(settings.then, Then::WriteAndCheck);
    assert_eq!(settings.skip_inbound_ports.len(), 2);
    assert_eq!(settings.skip_outbound_cidrs.len(), 2);
}

#[test]
fn capture_by_node_takes_the_same_lists() {
    let own = parse("--check --skip-inbound-ports=25").unwrap();
    let by_node = parse("--by-node --skip-inbound-ports=25").unwrap();
    assert_eq!(by_node.then, Then::ByNode);
    assert_eq!(by_node.skip_inbound_ports, own.skip_inbound_ports);
}

#[test]
fn an_empty_list_skips_nothing() {
    let settings =
        parse("--skip-inbound-ports= --skip-outbound-ports= --skip-outbound-cidrs=").unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn a_single_address_is_a_net_of_one() {
    let settings = parse("--skip-outbound-cidrs 169.254.169.254").unwrap();
    assert!(settings.skips_address("169.254.169.254".parse().unwrap()));
    assert!(!settings.skips_address("169.254.169.253".parse().unwrap()));
}

#[test]
fn mistakes_name_the_option_and_the_entry() {
    let message = |line| parse(line).unwrap_err().to_string();
    assert!(message("--skip-outbound-cidrs 10.0.0.0/33").contains("10.0.0.0/33"));
    assert!(message("--skip-outbound-ports 80,x").contains("--skip-outbound-ports"));
    assert!(message("--skip-inbound-ports").contains("needs a value"));
    assert!(message("--skip-everything").contains("--skip-everything"));
}

#[test]
fn a_list_longer_than_the_bound_is_refused() {
    let nets: Vec<_> = (0..=MAX_NETS).map(|n| format!("10.0.{n}.0/24")).collect();
    let line = format!("--skip-outbound-cidrs {}", nets.join(","));
    assert!(
        parse(&line)
            .unwrap_err()
            .to_string()
            .contains("more than 128")
    );
}

#[test]
fn api_server_address_is_known_unless_host_is_name() {
    let service = |host: &str, port: &str| {
        let env = EnvReader::from_map([
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port),
        ]);
        known_service(env).map(|address| address.to_string())
    };
    let known = service("10.96.0.1", "443");
    assert_eq!(known.as_deref(), Some("10.96.0.1:443"));
    let known = service("fd00::1", "6443");
    assert_eq!(known.as_deref(), Some("[fd00::1]:6443"));
    for (host, port) in [("api.example", "443"), ("10.96.0.1", "https"), ("", "443")] {
        assert_eq!(service(host, port), None, "{host} {port}");
    }
}
