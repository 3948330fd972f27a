# One starts or stops a cluster on this machine at a time. The lock is held by file
# descriptor 9, which daemons must not inherit, and ends with this process.

take_lock() {
  mkdir -p "$MACHINE_RUN"
  exec 9>"$MACHINE_RUN/lock"
  flock -n 9 || {
    say "waiting: another process starts or stops the cluster of this machine"
    flock -w 1200 9 || fail "the lock $MACHINE_RUN/lock was not free within 20 min"
  }
}
