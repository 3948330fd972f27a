//! Certificates that live for a quarter of an hour, as the chart may have it.
//!
//! Claims: observe-74

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;

use super::*;

/// So many seconds from now.
fn at(seconds: i64) -> String {
    let at = Timestamp::from_second(Timestamp::now().as_second() + seconds);
    at.unwrap().to_string()
}

#[tokio::test]
async fn short_lived_certificate_passes_until_renewal_is_missed() {
    let (none, late): (&[&str], &[&str]) = (&[], &["certificates"]);
    for (reports_issue, left, found) in [
        (true, 360, none),
        (false, 360, none),
        (true, 170, late),
        (false, 170, late),
    ] {
        let api = healthy();
        let mut controller = controller(true, true);
        let env = &mut controller["spec"]["template"]["spec"]["containers"][0]["env"];
        let ttl = json!({"name": "WEFT_LEAF_TTL", "value": "15m"});
        env.as_array_mut().unwrap().push(ttl);
        api.put(&format!("{WEFT}/weft-controller"), controller);
        let mut certificate = json!({"notAfter": at(left)});
        if reports_issue {
            certificate["issued"] = json!(at(left - 900));
        }
        plant_proxy(&api, "certificate", certificate);
        let (ended, report, _) = checked(&api, WELL, &[]).await;
        assert_eq!(with(&report, &["warning", "error"]), found, "{report:#}");
        let expected = match found {
            [] => Conclusion::Yes,
            _ => Conclusion::No,
        };
        assert_eq!(ended.unwrap(), expected, "{report:#}");
    }
}

/// A certificate from so many days from now to so many.
fn lasting(from: i64, to: i64) -> String {
    let day = |days: i64| {
        let then = Timestamp::from_second(Timestamp::now().as_second() + days * 86_400).unwrap();
        let date = then.to_zoned(TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_before = day(from);
    parameters.not_after = day(to);
    parameters.self_signed(&key).unwrap().pem()
}

/// As with `identity.rootLife`: what is rotated in time never has sixty days left.
#[tokio::test]
async fn short_lived_authority_passes_until_its_rotation_is_missed() {
    let (none, late): (&[&str], &[&str]) = (&[], &["certificate-authority", "issuer"]);
    for (begins, ends, found) in [(-12, 6, none), (-16, 2, late)] {
        let api = healthy();
        let pem = lasting(begins, ends);
        for namespace in ["shop", "a", "b"] {
            let map = json!({"metadata": {"name": "weft-trust-bundle", "namespace": namespace},
                "data": {"ca.crt": pem}});
            api.put(&BUNDLE.replace("shop", namespace), map);
        }
        api.put(SECRET, json!({"data": {"issuer.crt": secret(&pem)}}));
        let (_, report, _) = checked(&api, WELL, &[]).await;
        assert_eq!(with(&report, &["warning", "error"]), found, "{report:#}");
    }
}
