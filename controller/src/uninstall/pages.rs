//! Lists of a whole cluster, page by page, and the bounds of what is written to each object of them.

use std::time::Duration;

use crds::item::Item;
use kube::Api;
use kube::api::ListParams;
use serde::de::DeserializeOwned;

/// Objects read in one call. A page of pods in full is a few megabytes.
pub(super) const PAGE: u32 = 200;
/// Objects written at one time: a few hundred a second, which an API server does not feel.
pub(super) const AT_ONCE: usize = 16;
/// A call that takes longer has failed; the Job is tried again, and goes on where it was.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a list is started anew because the API server has forgotten where it was.
const LISTS: usize = 5;
/// Failures that the report names.
pub(super) const NAMED: usize = 20;

/// Hands a list over page by page. When the API server forgets where the list was, it
/// begins anew, so `take` may see an object twice.
pub(super) async fn each_page<K>(
    api: &Api<Item<K>>,
    params: ListParams,
    mut take: impl AsyncFnMut(Vec<K>),
) -> Result<(), kube::Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned + Default,
{
    let first = params.limit(PAGE);
    let mut lists = 1;
    let mut params = first.clone();
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 410 && lists < LISTS => {
                lists += 1;
                params = first.clone();
                continue;
            }
            Err(error) => return Err(error),
        };
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        take(page.items.into_iter().map(Item::or_empty).collect()).await;
        match next {
            Some(token) => params = first.clone().continue_token(&token),
            None => return Ok(()),
        }
    }
}
