# supervised "$0" "$@": goes on as a child of e2e/supervise, which ends every process of this
# run when the run is interrupted. Called before a script starts anything.
supervised() {
  # One that is called by a supervised script is in the tree of that one.
  [ -z "${WEFT_SUPERVISED:-}" ] || return 0
  command -v python3 >/dev/null || PACKAGES="python3:python3" require_packages
  exec "$ROOT/e2e/supervise" "$@"
}
