//! Which certificates of a Gateway end soon.

use std::collections::BTreeSet;

use gateway_api::gateway::GatewaySpec;
use k8s_openapi::jiff::Timestamp;
use model::world::{ListenerCertificateFacts, ObjectKey, World};

/// How long before its end a certificate is reported, in seconds: what renews certificates does so
/// a month before, and people need some days.
const SOON: i64 = 14 * 24 * 3600;

/// One sentence for each certificate of this Gateway that ends within 14 days, or has ended. It
/// names the day and not what is left, so that it stays the same.
pub(super) fn soon(spec: &GatewaySpec, world: &World, now: Timestamp) -> Vec<String> {
    let named = spec.listeners.iter().flat_map(|one| &one.certificates);
    let secrets: BTreeSet<ObjectKey> = named
        .map(|one| ObjectKey {
            namespace: one.namespace.clone(),
            name: one.name.clone(),
        })
        .collect();
    let ending = secrets.iter().filter_map(|secret| {
        let facts = world.listener_certificates.get(secret)?;
        let ListenerCertificateFacts::Usable { not_after, .. } = &**facts else {
            return None;
        };
        let ends = Timestamp::from_second(*not_after).ok()?;
        let left = not_after.saturating_sub(now.as_second());
        (left <= SOON).then(|| {
            let (day, verb) = (
                ends.strftime("%Y-%m-%d"),
                if left > 0 { "ends" } else { "ended" },
            );
            format!("the certificate in Secret {secret} {verb} on {day}: put a newer one there")
        })
    });
    ending.collect()
}

#[cfg(test)]
mod tests {
    use gateway_api::gateway::{CertificateRef, Listener};
    use model::world::collect::{Collector, Step};

    use super::*;

    const DAY: i64 = 24 * 3600;

    #[test]
    fn certificates_are_reported_two_weeks_before_end() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let certificate = |name: &str| CertificateRef {
            path: String::new(),
            group: "".into(),
            kind: "Secret".into(),
            namespace: "edge".into(),
            name: name.into(),
        };
        let names = ["long", "soon", "over", "unknown"];
        let listener = Listener {
            certificates: names.map(certificate).to_vec(),
            ..Listener::default()
        };
        let spec = GatewaySpec {
            listeners: vec![listener.clone(), listener],
            ..GatewaySpec::default()
        };
        let mut collector = Collector::default();
        for (name, left) in [("long", 15 * DAY), ("soon", 13 * DAY), ("over", -DAY)] {
            let facts = ListenerCertificateFacts::Usable {
                not_after: now.as_second() + left,
                fingerprint: "f".into(),
            };
            let step = Step::Applied(ObjectKey::new("edge", name), Some(facts));
            collector.listener_certificates.take(step);
        }
        let texts = soon(&spec, &collector.world(), now);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0].contains("edge/over ended on 2027-01-14"),
            "{texts:?}"
        );
        assert!(
            texts[1].contains("edge/soon ends on 2027-01-28"),
            "{texts:?}"
        );
    }
}
