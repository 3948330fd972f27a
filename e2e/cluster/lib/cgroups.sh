# Every process of the cluster lives below one cgroup: the control plane, nodes'
# daemons, and through them all shims and containers. Membership is inherited and
# cannot go stale, so stopping by cgroup never hits a foreign process whose pid was
# written in a file of ours once, and never misses a child.

# The hierarchy from which members are read; with cgroup v2 there is only one.
if [ -f /sys/fs/cgroup/cgroup.procs ]; then
  CGROUP_HIERARCHIES=/sys/fs/cgroup
  CGROUP_MEMBERS=/sys/fs/cgroup/$CGROUP
else
  CGROUP_HIERARCHIES=$(find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d)
  CGROUP_MEMBERS=/sys/fs/cgroup/pids/$CGROUP
fi

make_cgroups() {
  local hierarchy node file
  for hierarchy in $CGROUP_HIERARCHIES; do
    mkdir -p "$hierarchy/$CGROUP/control"
    for node in $NODES; do
      mkdir -p "$hierarchy/$CGROUP/node$node"
    done
  done
  # Version 1 makes new cpusets empty, and an empty one takes no process.
  if [ -f /sys/fs/cgroup/cpuset/cpuset.cpus ]; then
    for file in cpuset.cpus cpuset.mems; do
      for hierarchy in $CGROUP $CGROUP/control $(printf "$CGROUP/node%s " $NODES); do
        cat "/sys/fs/cgroup/cpuset/$file" > "/sys/fs/cgroup/cpuset/$hierarchy/$file"
      done
    done
  fi
}

# start NAME COMMAND...: a daemon that outlives this script; its log is LOGS/NAME.log.
start() {
  local name=$1
  shift
  (
    echo "$BASHPID" > "$CGROUP_MEMBERS/control/cgroup.procs"
    # The cluster may be started at a low priority, beside tests; its daemons are not to keep it.
    [ "$(nice)" = 0 ] || renice -n 0 -p "$BASHPID" >/dev/null || true
    exec setsid "$@"
  ) </dev/null >"$LOGS/$name.log" 2>&1 9>&- &
}

# members [BELOW]: pids of the cluster, or of one cgroup in it.
members() {
  local below=$CGROUP_MEMBERS${1:+/$1}
  [ -d "$below" ] || return 0
  find "$below" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

# signal_all SIGNAL [BELOW]
signal_all() {
  local pid
  for pid in $(members "${2:-}"); do
    kill "-$1" "$pid" 2>/dev/null || true
  done
}

no_process_left() { [ -z "$(members "${1:-}")" ]; }

remove_cgroups() {
  local hierarchy
  for hierarchy in $CGROUP_HIERARCHIES; do
    [ ! -d "$hierarchy/$CGROUP" ] || find "$hierarchy/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
