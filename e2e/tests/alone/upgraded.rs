//! The features that an upgrade switches on, each in namespaces of its own and all in
//! parallel: every upgrade replaces all controllers, and so does the way back to the defaults.
//!
//! Claims: mesh-12, observe-91, smi-6

use std::thread;

use e2e::harness::{Outcome, mesh, namespace::Failed};

use super::{
    altered::{Altered, own_ready},
    renewal, traces,
    udp::{self, Ground},
};

#[test]
fn one_upgrade_enables_minute_certificates_traces_and_network_policies() -> Outcome {
    let altered = Altered::begin()?;
    let services = traces::services()?;
    let [endpoint, sampling] = traces::values(&services);
    mesh::install(&[renewal::LIFE.1, udp::SWITCHED_ON, &endpoint, &sampling])?;
    own_ready(&services.cluster)?;
    // A failure in one thread ends the test after all threads have ended.
    let ground = thread::scope(|scope| -> Result<Ground, Failed> {
        scope.spawn(
            renewal::certificates_of_one_minute_are_renewed_under_load_without_a_lost_request,
        );
        scope.spawn(|| traces::a_trace_over_three_services_is_one_chain_of_six_spans(&services));
        let ground = Ground::new()?;
        udp::network_policies_appear_change_and_make_way_for_foreign_ones(&ground)?;
        Ok(ground)
    })?;
    altered.restore()?;
    udp::network_policies_vanish(&ground)?;
    Ok(())
}
