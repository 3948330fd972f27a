# Which packages cargo compiles for tests, images and the demo. It is one list because
# another choice of packages can mean other features of the same dependencies, and then
# these compile once more. `bench` has tests of its own, which only `make test-all` runs.

CARGO_PACKAGES=${WEFT_CARGO_PACKAGES:---workspace --exclude bench}
TRIPLE=x86_64-unknown-linux-gnu
# Where cargo puts programs of the profile dev.
DEV_PROGRAMS=${CARGO_TARGET_DIR:-$TARGET}/$TRIPLE/debug

# The one version of programs, images, chart and pages.
workspace_version() {
  sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml"
}

# compiled_crates LOG: what cargo compiled, by what it printed without --quiet, one
# `name version` in a line, and behind members of the workspace their folder.
compiled_crates() {
  sed -nE 's/^ +Compiling (.*)$/\1/p' "$1"
}
