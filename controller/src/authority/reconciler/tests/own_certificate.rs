//! The certificate that the controller itself shows follows the issuer.

use super::*;
use crate::authority::secret::put_issuer;

/// The former issuer is not in use then, and may be revoked: proxies would refuse the controllers,
/// and no deletion would reach them.
#[tokio::test]
async fn own_certificate_follows_the_issuer_in_use() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let holder = reconciler(&api, true);
    holder.step(now).await.unwrap();
    let identity = SpiffeId::of("cluster.local", "weft-system", "weft-controller").unwrap();
    let own = CertHandle::empty();
    let kept = tokio::spawn(keep_serving(
        holder.authority.clone(),
        identity,
        Duration::from_secs(3600),
        own.clone(),
        AuthorityMetrics::default(),
        Clock::system(),
    ));
    let signer = || {
        let leaf = own.current()?;
        Some(leaf.identity().certificate.authority)
    };
    while signer().is_none() {
        tokio::task::yield_now().await;
    }
    let former = signer();

    let loaded = holder.authority.loaded().unwrap();
    let roots = holder.authority.ready().await;
    let issuer = successor(loaded.root.as_ref().unwrap(), &roots, now).unwrap();
    let mut data = loaded.data.clone();
    put_issuer(&issuer, &mut data);
    let secret = Secret {
        data: Some(data),
        ..Secret::default()
    };
    assert!(holder.authority.load(&secret, now).unwrap());
    let renewed = async {
        while signer() == former {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), renewed).await.unwrap();
    kept.abort();
}
