//! Drills: what fails around fifty proxies while the root of the mesh is rotated, or its keys and
//! certificates are at stake, costs no request, or is mended by itself within thirty seconds.
//!
//! Not part of `make test`: they take the whole local cluster for forty minutes, stop its API server
//! and pull a node's cable. `make drill` runs them one after another and goes on where it was ended;
//! the rules of a rotation are tested purely, by `identity/src/rotation/tests/schedules.rs`.
//!
//! Bounds of the promises are the promises' own here: this is where they are measured.

#[path = "../alone/altered.rs"]
#[expect(dead_code, reason = "the injector is left alone here")]
mod altered;
mod cert_manager;
mod controllers;
mod machines;
mod sound;
mod stored;
mod town;

use std::time::Duration;

/// Bundles reach pods later than the kubelet of a busy machine, and no pod starts meanwhile.
const SETTLE: &str = "identity.rotation.settle=15s";
/// From one state of a rotation to the next, with patience: after a controller's start a minute is
/// given to proxies that are not back.
const PHASE: Duration = Duration::from_secs(180);
/// A whole rotation, with a controller that starts in each phase.
const ENDED: Duration = Duration::from_secs(420);
