//! A pod that comes and goes, and what its callers must learn of it.

use anyhow::Result;
use serde_json::json;
use wire::v1;
use wire::v1::resource::Content;

use crate::api::Wanted;
use crate::bench::Bench;
use crate::cluster::{self, Size};
use crate::fleet::Fleet;

/// The last pod of a Service, whose own proxy does not stream: only callers are asked.
pub(crate) struct Moved {
    service: usize,
    replica: usize,
    per: usize,
    resource: String,
}

impl Moved {
    pub(crate) fn new(size: &Size, service: usize) -> Self {
        let resource = wire::names::endpoints(
            &cluster::namespace_of(service),
            &cluster::service_name(service),
            cluster::PORT,
        );
        Self {
            service,
            replica: size.pods_per_service - 1,
            per: size.pods_per_service,
            resource,
        }
    }

    fn at(&self) -> usize {
        self.service * self.per + self.replica
    }

    pub(crate) fn pod(&self) -> Wanted {
        cluster::pod(self.service, self.replica, self.at())
    }

    pub(crate) fn pod_path(&self) -> String {
        cluster::pod_path(self.service, self.replica)
    }

    pub(crate) fn neighbour_path(&self) -> String {
        cluster::pod_path(self.service, self.replica - 1)
    }

    /// Every caller of the Service must receive whether the pod is there.
    pub(crate) fn announce(&self, fleet: &Fleet, there: bool) {
        let address = cluster::pod_ip(self.at()).to_string();
        let shows = move |resource: &v1::Resource| match &resource.content {
            Some(Content::Endpoints(endpoints)) => {
                let mut endpoints = endpoints.endpoints.iter();
                endpoints.any(|endpoint| endpoint.ip == address) == there
            }
            _ => false,
        };
        let callers = fleet.callers(self.service);
        let change_tracker = fleet.change_tracker();
        change_tracker.expect(&self.resource, callers, Box::new(shows));
    }

    /// Takes the pod out of its slice or puts it back.
    pub(crate) async fn write(&self, bench: &Bench, fleet: &Fleet, there: bool) -> Result<()> {
        let path = format!("/endpoints/{}", self.replica);
        let change = if there {
            let endpoint = cluster::endpoint(self.service, self.per, self.replica);
            json!([{"op": "add", "path": path, "value": endpoint}])
        } else {
            json!([{"op": "remove", "path": path}])
        };
        let slice = cluster::slice_path(self.service);
        bench.api.patch(&slice, &change).await?;
        fleet.change_tracker().written(&self.resource);
        Ok(())
    }
}
