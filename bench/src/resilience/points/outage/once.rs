//! Nothing that an application may have seen is sent to another one where no policy allows
//! it: POST, and gRPC without any object.

use anyhow::Result;

use super::{ANSWERS_503, ASKED_NOTHING, GRPC, Outage, OutageRun, THIRD, of_all, probes_alone};
use crate::resilience::application::{ID, METHOD};
use crate::resilience::client::Call;
use crate::resilience::generator::CallEnd;
use crate::resilience::judge;
use crate::resilience::points::{Bench, Row, SYSTEMS, Section, millis, row};

/// Of one caller, after which an instance is ejected.
const IN_A_ROW: usize = 5;

const POSTS: Outage = Outage {
    name: "POST, answers 503",
    time: 20,
    call: numbered,
    ..ANSWERS_503
};
const GRPC_PLAIN: Outage = Outage {
    name: "gRPC, answers 14, no object",
    requested: ASKED_NOTHING,
    call: numbered,
    ..GRPC
};

/// Over gRPC everything is a POST anyway.
fn numbered(number: u64) -> Call {
    Call {
        method: "POST",
        path: METHOD,
        headers: vec![(ID, number.to_string())],
    }
}

/// Calls that failed, of each caller.
fn failed(run: &OutageRun) -> impl Iterator<Item = usize> {
    let callers = run.callers.iter();
    callers.map(|one| judge::count(one, CallEnd::Refused))
}

fn seen_twice(outage: &Outage, all: &[Option<OutageRun>; SYSTEMS]) -> Row {
    row(
        format!("{}: requests that two applications saw", outage.name),
        "0",
        all,
        |run| run.again.to_string(),
        |run| run.again == 0,
    )
}

fn rests(outage: &Outage, all: &[Option<OutageRun>; SYSTEMS]) -> Row {
    let list = |run: &OutageRun| {
        let failed = failed(run).map(|count| count.to_string());
        failed.collect::<Vec<_>>().join(", ")
    };
    // A caller that sends fewer there has nothing to go by, and has avoided it.
    let rested = |run: &OutageRun| {
        let mut callers = failed(run).zip(&run.ejections);
        callers.all(|(failed, rests)| failed < IN_A_ROW || *rests >= 1.0)
    };
    row(
        format!(
            "{}: calls that failed, by caller, until it rested and by probes",
            outage.name
        ),
        "it rests wherever 5 failed",
        all,
        list,
        rested,
    )
}

fn slowest(outage: &Outage, all: &[Option<OutageRun>; SYSTEMS]) -> Row {
    row(
        format!("{}: slowest of the good calls", outage.name),
        "",
        all,
        |run| {
            let good = run.samples.iter().filter(|one| judge::is_good(one));
            millis(good.map(|one| one.took).max().unwrap_or_default())
        },
        |_| true,
    )
}

/// One instance of three fails, with calls that must not be made twice.
pub(in crate::resilience) fn seen_by_one(bench: &Bench) -> Result<Section> {
    let posts = of_all(bench, &POSTS)?;
    // That 503 is tried again makes no difference to gRPC.
    let grpc = of_all(&bench.some_of([true, true, false]), &GRPC_PLAIN)?;
    let rows = [(&POSTS, &posts), (&GRPC_PLAIN, &grpc)].map(|(outage, all)| {
        [
            seen_twice(outage, all),
            rests(outage, all),
            probes_alone(outage, all),
            slowest(outage, all),
        ]
    });
    Ok(Section {
        title: "The same with POST, and with gRPC without any object",
        how: "As above, one of three instances answers 503 to every POST, and then 14 to every call over gRPC. Nothing is configured: Weft has no TrafficPolicy, and Istio tries `unavailable` again by default. Each request carries a number, and all applications together look for numbers that come twice: nothing may be sent again that an application may have seen. No call of the generator is ever repeated.".to_owned(),
        third: THIRD,
        rows: rows.into_iter().flatten().collect(),
        picture: None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{GRPC_PLAIN, ID, OutageRun, POSTS, SYSTEMS, judge, rests, seen_twice};
    use crate::resilience::generator::{CallEnd, Sample};
    use crate::resilience::points::BoundResult;

    fn weft(again: u64, failed: usize, rests: f64) -> [Option<OutageRun>; SYSTEMS] {
        let sample = Sample {
            due: Duration::ZERO,
            took: Duration::ZERO,
            end: CallEnd::Refused,
        };
        let callers = vec![vec![sample; failed]];
        let run = OutageRun {
            samples: judge::all(&callers),
            callers,
            before: Duration::ZERO,
            time: Duration::from_secs(1),
            bad: Vec::new(),
            again,
            ejections: vec![rests],
        };
        [Some(run), None, None]
    }

    #[test]
    fn one_request_that_two_applications_saw_misses_the_bound() {
        for (again, expected) in [(0, BoundResult::Met), (1, BoundResult::Missed)] {
            let row = seen_twice(&GRPC_PLAIN, &weft(again, 0, 0.0));
            assert_eq!(row.bound_result, expected);
            assert_eq!(
                row.what,
                "gRPC, answers 14, no object: requests that two applications saw"
            );
        }
    }

    #[test]
    fn endpoint_failing_five_calls_is_ejected() {
        let of = |failed, times| rests(&POSTS, &weft(0, failed, times)).bound_result;
        assert_eq!(of(4, 0.0), BoundResult::Met);
        assert_eq!(of(5, 0.0), BoundResult::Missed);
        assert_eq!(of(5, 1.0), BoundResult::Met);
    }

    /// With `grpcCodes` a second application may see a call, and without numbers it is unknown.
    #[test]
    fn grpc_calls_are_numbered_and_never_retried() {
        const { assert!(GRPC_PLAIN.grpc && !GRPC_PLAIN.requested.grpc_unavailable) };
        let call = (GRPC_PLAIN.call)(7);
        assert_eq!(call.headers, [(ID, "7".to_owned())]);
    }
}
