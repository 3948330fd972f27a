//! Proxies whose certificates are revoked.

use serde_json::json;

use super::*;

fn revoked() -> Cluster {
    let account = json!({"serviceAccount": {"namespace": "shop", "name": "web"}});
    let spec = json!({"reason": "test", "subjects": [account]});
    cluster::shop().with(cluster::revocation("leak", spec))
}

fn hello() -> v1::Hello {
    v1::Hello {
        capabilities: vec!["revocations".to_owned()],
        ..hello_for(&[])
    }
}

#[tokio::test]
async fn revoked_proxy_is_sent_why_before_its_stream_ends() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello()).await;
    let first = proxy.batch().await;
    assert!(!names(&first).contains(&"revocations"));
    proxy.ack(&first).await;
    bench.publish(&revoked());
    let batch = proxy.batch().await;
    assert_eq!(names(&batch), ["revocations"]);
    proxy.ack(&batch).await;
    let ended = timeout(PATIENCE, proxy.inbox.message()).await.unwrap();
    let status = ended.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    let why = "the certificate is revoked by Revocation leak";
    assert_eq!(status.message(), why);

    let caller = account("shop", "web");
    let channel = bench.mesh_channel(&caller, Some("uid-client"));
    let opened = Proxy::try_open(channel.await, hello()).await;
    let refused = opened.err().unwrap();
    assert_eq!(refused.message(), why);
    bench.publish(&cluster::shop());
    let mut again = bench.client(hello()).await;
    assert!(!names(&again.batch().await).contains(&"revocations"));
}
