//! The demo: a small shop in the mesh, and a table of what its proxies count.
//!
//! It judges itself. What the table shows is compared with what was promised, and
//! the demo fails when they differ, so it can never be a picture of a broken mesh.

pub mod breakage;
pub mod call;
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
