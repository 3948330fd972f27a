//! The data plane: a proxy beside every pod, and the redirection that brings
//! the pod's traffic to it.
//!
//! `outbound` and `inbound` tell the story of a connection; everything else is
//! a step of one of the two. `app` puts the parts together.

pub mod access_log;
pub mod app;
pub mod capture;
pub mod config;
pub mod control;
pub mod drain_command;
pub mod endpoints;
pub mod failure;
pub mod finish;
pub mod http;
pub mod inbound;
pub mod leaving;
pub mod lifecycle;
pub mod memory;
pub mod mesh;
pub mod metrics;
pub mod net;
pub mod outbound;
pub mod pages;
pub mod places;
pub mod probe;
pub mod report;
pub mod settings;
pub mod trace;
pub mod tunnel;
