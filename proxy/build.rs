//! Sets the linker's options for the program `weft-proxy`.

/// Each place that holds an address of the program itself is written once at the start,
/// from a table. Packed (DT_RELR, in glibc since 2.36), that table is a few KiB instead of
/// hundreds, which every proxy would read and keep resident.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
