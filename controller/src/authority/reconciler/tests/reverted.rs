//! Contents that another client puts over the Secret: a restored backup, or one that adds a root.

use super::*;

/// Writes a content as the client with this field manager does.
fn put_over(api: &FakeApi, mut secret: Value, manager: &str) {
    let wrote = |manager: &str, time: &str| json!({"manager": manager, "operation": "Update", "time": time});
    secret["metadata"]["managedFields"] = json!([
        wrote(manager, "2026-11-02T00:00:00Z"),
        wrote("unknown-controller", "2026-11-01T00:00:00Z"),
    ]);
    api.put(PATH, secret);
}

/// A content that works and has another root.
async fn backup(now: SystemTime) -> Value {
    let api = FakeApi::default();
    reconciler(&api, true).step(now).await.unwrap();
    api.read(PATH).unwrap()
}

/// The content with one more root.
fn with_root(mut secret: Value, pem: &str) -> Value {
    let roots: ByteString = serde_json::from_value(secret["data"][ROOT_CRT].clone()).unwrap();
    let both = [roots.0.as_slice(), b"\n", pem.as_bytes()].concat();
    secret["data"][ROOT_CRT] = json!(ByteString(both));
    secret
}

#[tokio::test]
async fn running_replicas_keep_roots_that_a_restored_secret_lacks() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
    let (mut holder, other) = (reconciler(&api, true), reconciler(&api, false));
    holder.events = events;
    holder.step(now).await.unwrap();
    other.step(now).await.unwrap();
    let (first, roots) = (key(&api, ROOT_CRT), holder.authority.roots_der());

    put_over(&api, backup(now).await, "velero-server");
    let writes = api.writes().len();
    other.step(now).await.unwrap();
    other.step(now).await.unwrap();
    assert_eq!(api.writes().len(), writes, "not its task");
    holder.step(now).await.unwrap();
    assert_eq!(key(&api, ROOT_CRT), first, "written back");
    let writes = api.writes().len();
    holder.step(now).await.unwrap();
    other.step(now).await.unwrap();
    assert_eq!(api.writes().len(), writes, "once");
    for replica in [&holder, &other] {
        assert_eq!(replica.authority.roots_der(), roots);
        assert!(can_sign(replica, now));
        assert_eq!(replica.metrics.reverts.get(), 1);
    }

    drop(holder);
    writer.run(std::future::pending()).await;
    let events = api.below("/apis/events.k8s.io/v1/namespaces/mesh/events/");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["reason"], "AuthorityReverted");
    assert_eq!(events[0]["type"], "Warning");
    let text = events[0]["note"].as_str().unwrap();
    assert!(text.contains("velero-server"), "{text}");
    assert!(text.contains(ROOT_CRT), "{text}");
}

#[tokio::test]
async fn holder_writes_back_over_unusable_content() {
    let garbage = || Some(json!("bm90IGEgY2VydGlmaWNhdGU="));
    let damages = [
        (ROOT_CRT, garbage()),
        (ROOT_CRT, None),
        (ROOT_KEY, garbage()),
        (ISSUER_CRT, garbage()),
        (ISSUER_KEY, garbage()),
        (ISSUER_KEY, None),
    ];
    for (name, value) in damages {
        let (api, now) = (FakeApi::default(), SystemTime::now());
        let (holder, other) = (reconciler(&api, true), reconciler(&api, false));
        holder.step(now).await.unwrap();
        other.step(now).await.unwrap();
        let whole = key(&api, name);
        let mut damaged = api.read(PATH).unwrap();
        let data = damaged["data"].as_object_mut().unwrap();
        data.remove(name);
        data.extend(value.map(|value| (name.to_owned(), value)));
        put_over(&api, damaged, "kubectl");

        let refused = other.step(now).await.unwrap_err();
        let unusable = other.authority.beside_unusable().unwrap().to_string();
        assert!(unusable.contains(name), "{name}: {unusable}, {refused}");
        holder.step(now).await.unwrap();
        other.step(now).await.unwrap();
        assert_eq!(key(&api, name), whole, "{name}");
        for replica in [&holder, &other] {
            assert_eq!(replica.metrics.reverts.get(), 1, "{name}");
            assert!(can_sign(replica, now), "{name}");
            assert_eq!(replica.authority.beside_unusable(), None, "{name}");
        }
    }
}

#[tokio::test]
async fn unusable_content_of_a_later_step_stays() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let holder = reconciler(&api, true);
    holder.step(now).await.unwrap();
    let mut later = api.read(PATH).unwrap();
    later["data"][ISSUER_KEY] = json!(ByteString(b"of a later version".to_vec()));
    later["data"][ROTATION] = json!(ByteString(br#"{"step": 7}"#.to_vec()));
    put_over(&api, later, "weft-controller");
    let writes = api.writes().len();
    assert!(holder.step(now).await.is_err());
    assert_eq!(api.writes().len(), writes);
    assert!(holder.authority.beside_unusable().is_some());
    assert!(can_sign(&holder, now));
}

#[tokio::test]
async fn restored_issuer_that_ended_brings_no_foreign_root() {
    let (api, start) = (FakeApi::default(), SystemTime::now());
    let old = backup(start).await;
    let later = start + ISSUER_LIFE + DAY;
    let holder = reconciler(&api, true);
    holder.step(later).await.unwrap();
    let first = key(&api, ROOT_CRT);
    put_over(&api, old, "etcd");
    holder.step(later).await.unwrap();
    assert_eq!(key(&api, ROOT_CRT), first);
    assert!(can_sign(&holder, later));
}

#[tokio::test]
async fn added_root_is_taken_and_stays() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let replica = reconciler(&api, true);
    replica.step(now).await.unwrap();
    let first = api.read(PATH).unwrap();
    let added = Root::generate(now, ROOT_LIFE).unwrap();
    put_over(&api, with_root(first.clone(), added.cert_pem()), "kubectl");
    replica.step(now).await.unwrap();
    assert_eq!(replica.authority.roots_der().len(), 2);
    assert_eq!(replica.metrics.reverts.get(), 0);

    put_over(&api, first, "kubectl");
    replica.step(now).await.unwrap();
    assert_eq!(replica.authority.roots_der().len(), 2);
    assert_eq!(replica.metrics.reverts.get(), 1);
}

#[tokio::test]
async fn root_that_has_ended_may_be_taken_out() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let replica = reconciler(&api, true);
    replica.step(now).await.unwrap();
    let first = api.read(PATH).unwrap();
    let added = Root::generate(now, DAY).unwrap();
    api.put(PATH, with_root(first.clone(), added.cert_pem()));
    replica.step(now).await.unwrap();
    assert_eq!(replica.authority.roots_der().len(), 2);

    api.put(PATH, first);
    replica.step(now + 2 * DAY).await.unwrap();
    assert_eq!(replica.authority.roots_der().len(), 1);
    assert_eq!(replica.metrics.reverts.get(), 0);
}

#[tokio::test]
async fn replica_started_from_restored_secret_follows_lease_holder() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let holder = reconciler(&api, true);
    holder.step(now).await.unwrap();
    put_over(&api, backup(now).await, "velero-server");
    let late = reconciler(&api, false);
    late.step(now).await.unwrap();
    assert!(can_sign(&late, now), "it takes what is there");
    assert_ne!(late.authority.roots_der(), holder.authority.roots_der());
    holder.step(now).await.unwrap();
    late.step(now).await.unwrap();
    assert_eq!(late.authority.roots_der(), holder.authority.roots_der());
    assert!(can_sign(&late, now));
}

#[tokio::test(start_paused = true)]
async fn follower_writes_back_where_holder_started_from_the_backup() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let follower = reconciler(&api, false);
    reconciler(&api, true).step(now).await.unwrap();
    follower.step(now).await.unwrap();
    put_over(&api, backup(now).await, "velero-server");
    let holder = reconciler(&api, true);
    holder.step(now).await.unwrap();
    follower.step(now).await.unwrap();
    assert_ne!(follower.authority.roots_der(), holder.authority.roots_der());

    tokio::time::advance(HOLDER_HAS).await;
    follower.step(now).await.unwrap();
    holder.step(now).await.unwrap();
    follower.step(now).await.unwrap();
    assert_eq!(follower.authority.roots_der(), holder.authority.roots_der());
}

#[tokio::test(start_paused = true)]
async fn tool_that_repeats_its_backup_is_answered_slowly() {
    let (api, now) = (FakeApi::default(), SystemTime::now());
    let holder = reconciler(&api, true);
    holder.step(now).await.unwrap();
    let old = backup(now).await;
    let writes = api.writes().len();
    for _ in 0..20 {
        put_over(&api, old.clone(), "external-secrets");
        holder.step(now).await.unwrap();
    }
    assert_eq!(api.writes().len(), writes + 3);
    assert!(can_sign(&holder, now));
}
