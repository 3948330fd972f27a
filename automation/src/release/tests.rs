//! Tests of a release's runs in a cluster of a few lines: a Deployment that rolls, callers, a
//! kubelet, and a controller that persists.

mod commands;
mod ends;
mod steps;
mod takeover;
mod world;
