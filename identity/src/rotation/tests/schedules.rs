//! Planned and hasty rotations among three replicas, whatever fails.
//!
//! While all rotations are planned, connected proxies accept each other at every moment. Once the
//! failures end, every rotation ends too, with one root below which all leaves are.
//!
//! Claims: trust-7

use super::mesh::{Mesh, Workload};

const SCHEDULES: u64 = 2_000;
/// In each round of `make fuzz`, which has several.
const FUZZED: u64 = 10 * SCHEDULES;

#[test]
fn planned_rotation_keeps_proxies_together_in_every_schedule() {
    let fuzzes = std::env::var_os("WEFT_FUZZ_SECONDS").is_some();
    for seed in oracle::seeds::seeds(if fuzzes { FUZZED } else { SCHEDULES }) {
        let mut mesh = Mesh::new(seed);
        for _ in 0..100 + mesh.chance.below(200) {
            mesh.tick();
            if !mesh.compromises {
                mesh.must_hold(seed);
            }
        }
        mesh.heal();
        let mut ticks = 0;
        while ticks < 20 || !mesh.has_ended() {
            mesh.tick();
            ticks += 1;
            assert!(
                ticks < 3_000,
                "schedule {seed} is stuck: {:?} {:?}",
                mesh.last,
                mesh.stored
            );
        }
        // Proxies renew what is not below the first root, each at its own time.
        for _ in 0..60 {
            mesh.tick();
        }
        mesh.must_hold(seed);
        assert_eq!(mesh.stored.1.roots.len(), 1, "schedule {seed}");
        let root = mesh.stored.1.active();
        let below = |workload: &Workload| workload.leaf.map(|leaf| leaf.0) == root;
        assert!(
            mesh.connected().all(below),
            "schedule {seed}: a leaf below a former root"
        );
    }
}
