//! Finds the certificates of a Gateway's listeners that end within two weeks.

use std::collections::BTreeSet;

use gateway_api::gateway::GatewaySpec;
use gateway_api::grants::Grants;
use k8s_openapi::jiff::Timestamp;
use model::world::{ListenerCertificateFacts, ObjectKey, World};

/// How long before its end a certificate is reported, in seconds: what renews certificates does so
/// a month before, and people need some days.
const SOON: i64 = 14 * 24 * 3600;

/// One sentence for each certificate of this Gateway that ends within 14 days, or has ended. It
/// names the day and not what is left, so that it stays the same. Of a Secret that the Gateway may
/// not name nothing is said: another Gateway may be allowed to.
pub(super) fn soon(spec: &GatewaySpec, world: &World, now: Timestamp) -> Vec<String> {
    let grants = Grants::new(world.grants.values().map(|facts| &*facts.grant));
    let named = spec.listeners.iter().flat_map(|one| &one.certificates);
    let permitted = named.filter(|one| {
        one.is_secret() && grants.allows_secret(&spec.namespace, &one.namespace, &one.name)
    });
    let secrets: BTreeSet<ObjectKey> = permitted
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

    /// A Gateway of namespace `edge`, of which two listeners name these Secrets.
    fn naming<const N: usize>(secrets: [(&str, &str); N]) -> GatewaySpec {
        let certificate = |(namespace, name): (&str, &str)| CertificateRef {
            path: String::new(),
            group: "".into(),
            kind: "Secret".into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        let listener = Listener {
            certificates: secrets.map(certificate).to_vec(),
            ..Listener::default()
        };
        GatewaySpec {
            namespace: "edge".into(),
            listeners: vec![listener.clone(), listener],
            ..GatewaySpec::default()
        }
    }

    /// In which these Secrets were read, with the seconds that are left of each certificate.
    fn world<const N: usize>(read: [(ObjectKey, i64); N], now: Timestamp) -> World {
        let mut collector = Collector::default();
        for (secret, left) in read {
            let facts = ListenerCertificateFacts::Usable {
                not_after: now.as_second() + left,
                fingerprint: "f".into(),
            };
            let step = Step::Applied(secret, Some(facts));
            collector.listener_certificates.take(step);
        }
        collector.world()
    }

    #[test]
    fn certificates_are_reported_two_weeks_before_end() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let spec = naming(["long", "soon", "over", "unknown"].map(|name| ("edge", name)));
        let left = [("long", 15 * DAY), ("soon", 13 * DAY), ("over", -DAY)];
        let read = left.map(|(name, left)| (ObjectKey::new("edge", name), left));
        let texts = soon(&spec, &world(read, now), now);
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

    /// It was read for a Gateway that may name it.
    #[test]
    fn secrets_without_grant_are_not_spoken_of() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let read = [(ObjectKey::new("theirs", "over"), -DAY)];
        let texts = soon(&naming([("theirs", "over")]), &world(read, now), now);
        assert!(texts.is_empty(), "{texts:?}");
    }
}
