# Which packages cargo compiles for tests, images and the demo. It is one list because
# another choice of packages can mean other features of the same dependencies, and then
# these compile once more. `bench` has tests of its own, which only `make test-all` runs.

CARGO_PACKAGES=${WEFT_CARGO_PACKAGES:---workspace --exclude bench}
TRIPLE=x86_64-unknown-linux-gnu
# Where cargo puts programs of the profile dev.
DEV_PROGRAMS=${CARGO_TARGET_DIR:-$TARGET}/$TRIPLE/debug

# for_architecture NAME: sets ARCHITECTURE, a processor as OCI and Kubernetes call it, TRIPLE, as cargo
# does, the C compiler and the prefix of binutils for it, and what runs its programs here. The status
# is 1 where nothing is built for it.
for_architecture() {
  ARCHITECTURE=$1 COMPILER=cc BINUTILS="" EMULATOR=()
  case $1 in
    amd64) TRIPLE=x86_64-unknown-linux-gnu ;;
    arm64)
      TRIPLE=aarch64-unknown-linux-gnu
      COMPILER=aarch64-linux-gnu-gcc BINUTILS=aarch64-linux-gnu-
      # With the largest pages of its kernels, 64 KiB: an allocator for smaller ones ends the
      # program at once.
      EMULATOR=(qemu-aarch64 -p 65536)
      ;;
    *) return 1 ;;
  esac
}

# Rust's, for $TRIPLE: a toolchain comes with that of its own machine alone.
require_standard_library() {
  local folder
  folder=$(rustc --print target-libdir --target "$TRIPLE")
  [ -d "$folder" ] || rustup target add "$TRIPLE" >&2 || true
  [ -d "$folder" ] ||
    fail "rustc has no standard library for $ARCHITECTURE: run \`rustup target add $TRIPLE\` in $ROOT"
}

# The one version of programs, images, chart and pages.
workspace_version() {
  sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml"
}

# compiled_crates LOG: what cargo compiled, by what it printed without --quiet, one
# `name version` in a line, and behind members of the workspace their folder.
compiled_crates() {
  sed -nE 's/^ +Compiling (.*)$/\1/p' "$1"
}
