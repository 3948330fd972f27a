//! Converts the sections of FaultExperiments: what harms calls, and which calls are counted apart.

use std::sync::Arc;

use http::StatusCode;
use policy::fault::{Abort, Fault, HarmedPods, InjectedFailure, Selection};
use policy::share::Share;
use policy::traffic::bounds;

use super::super::values::{milliseconds, number, time};
use super::{Read, ToSection};
use crate::convert::error::BadResource;
use crate::v1::{self, fault::Failure, policy_rule::Section};

/// `None` for an effect that is not known: the calls are not harmed.
pub(in super::super) fn fault(message: &v1::Fault) -> Read<Option<Arc<Fault>>> {
    let delay = match message.delay {
        0 => None,
        delay => Some(time("delay", delay, &bounds::FAULT_DELAY)?),
    };
    let failure = match &message.failure {
        None | Some(Failure::Refuse(false) | Failure::Reset(false)) => None,
        Some(Failure::Abort(one)) => {
            let one = abort(one).map_err(|bad| bad.within("abort"))?;
            Some(InjectedFailure::Abort(one))
        }
        Some(Failure::Refuse(true)) => Some(InjectedFailure::Refuse),
        Some(Failure::Reset(true)) => Some(InjectedFailure::Reset),
    };
    let selection = selection(message.seed, message.share)?;
    if delay.is_none() && failure.is_none() {
        return Ok(None);
    }
    let pods = message.pods.as_ref();
    let pods = pods.map(|pods| HarmedPods::new(pods.uids.iter().map(|uid| uid.as_str().into())));
    Ok(Some(Arc::new(Fault {
        selection,
        delay,
        failure,
        pods,
    })))
}

fn abort(message: &v1::Abort) -> Read<Abort> {
    let status: u16 = number(
        "http_status",
        message.http_status,
        &bounds::FAULT_HTTP_STATUS,
    )?;
    let http_status =
        StatusCode::from_u16(status).map_err(|bad| BadResource::new("http_status", bad))?;
    let grpc_status = match message.grpc_status {
        0 => None,
        status => Some(number("grpc_status", status, &bounds::FAULT_GRPC_STATUS)?),
    };
    Ok(Abort {
        http_status,
        grpc_status,
    })
}

fn selection(seed: u64, share: u32) -> Read<Selection> {
    let share = number("share", share, &bounds::FAULT_SHARE)?;
    // The bound is all of them.
    let share = Share::of_millionths(share).unwrap_or(Share::ALL);
    Ok(Selection { seed, share })
}

impl ToSection for Arc<Fault> {
    fn to_section(&self) -> Section {
        let Selection { seed, share } = self.selection;
        let failure = self.failure.map(|failure| match failure {
            InjectedFailure::Abort(one) => Failure::Abort(v1::Abort {
                http_status: one.http_status.as_u16().into(),
                grpc_status: one.grpc_status.map_or(0, u32::from),
            }),
            InjectedFailure::Refuse => Failure::Refuse(true),
            InjectedFailure::Reset => Failure::Reset(true),
        });
        Section::Fault(v1::Fault {
            seed,
            share: share.millionths(),
            delay: self.delay.map_or(0, milliseconds),
            failure,
            pods: self.pods.as_ref().map(|pods| v1::PodSet {
                uids: pods.iter().map(ToString::to_string).collect(),
            }),
        })
    }
}

pub(in super::super) fn groups(message: &v1::Groups) -> Read<Selection> {
    selection(message.seed, message.share)
}

impl ToSection for Selection {
    fn to_section(&self) -> Section {
        Section::Groups(v1::Groups {
            seed: self.seed,
            share: self.share.millionths(),
        })
    }
}
