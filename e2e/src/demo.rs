//! The demo: a small shop in the mesh, and a table of what its proxies count.
//!
//! It checks itself. The table's numbers are compared with the promises, and the demo
//! fails when they differ, so it never shows a broken mesh as a working one.

pub mod breakage;
pub mod call;
pub mod canary;
pub mod kept;
pub mod ledger;
pub mod link;
pub mod names;
pub mod progress;
pub mod promise;
pub mod shop;
pub mod table;

#[cfg(test)]
mod tests;
