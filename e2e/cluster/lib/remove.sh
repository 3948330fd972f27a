# Removes whatever of a local cluster is on this machine, also when its run was
# killed half way or its checkout is gone. Every part may be missing.

# Folders that kubelet, containerd and CNI plugins make at fixed places. Those that
# were not there before us go again.
FIXED_PLACES="/var/lib/kubelet /var/lib/cni /var/log/containers /run/containerd /opt/containerd"

note_fixed_places() {
  local place
  for place in $FIXED_PLACES; do
    [ -e "$place" ] || echo "$place"
  done > "$MACHINE_RUN/not-ours-before"
}

anything_left() {
  [ -d "$CGROUP_MEMBERS" ] || [ -e "$MACHINE_STATE" ] || [ -e "$MACHINE_RUN/owner" ] ||
    ip link show "$BRIDGE" >/dev/null 2>&1 || [ -e "/run/netns/$(node_netns 1)" ]
}

remove_cluster() {
  stop_processes
  unmount_below "$MACHINE_STATE"
  unmount_below "$MACHINE_RUN"
  remove_networks
  remove_cgroups
  remove_folders
}

# Kubelets first, or they would start anew what is being stopped.
stop_processes() {
  local pid tries=50 were
  were=$(members)
  signal_all TERM control
  wait_gone 5 || true
  signal_all KILL
  wait_gone 20 || fail "these processes of the cluster do not end: $(members | tr '\n' ' ')"
  # A dead process leaves its cgroup before its parent, init, has taken note of it.
  for pid in $were; do
    while [ -e "/proc/$pid" ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
  done
}

wait_gone() {
  local tries=$(($1 * 10))
  until no_process_left; do
    [ $((tries -= 1)) -gt 0 ] || return 1
    sleep 0.1
  done
}

unmount_below() {
  local point
  # Deepest first.
  awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
    umount -l "$point" 2>/dev/null || true
  done
}

remove_networks() {
  local node netns
  # Of a cluster whose nodes shared /run/netns. A pod's namespace is held by its pause process.
  # When that is gone no process is in it, while pods of another runtime on this machine still
  # have theirs.
  local inhabited
  inhabited=" $({ stat -Lc %i /proc/[0-9]*/ns/net 2>/dev/null || true; } | sort -u | tr '\n' ' ') "
  for netns in /run/netns/cni-*; do
    [ -e "$netns" ] || continue
    case $inhabited in
      *" $(stat -c %i "$netns") "*) ;;
      *) ip netns delete "${netns##*/}" 2>/dev/null || true ;;
    esac
  done
  for node in $NODES; do
    [ ! -e "/run/netns/$(node_netns "$node")" ] || ip netns delete "$(node_netns "$node")"
    ip link delete "$(node_veth "$node")" 2>/dev/null || true
  done
  ip link delete "$BRIDGE" 2>/dev/null || true
  if [ "$(cat "$MACHINE_RUN/ip-forward-before" 2>/dev/null)" = 0 ]; then
    sysctl -qw net.ipv4.ip_forward=0
  fi
}

remove_folders() {
  local place
  rm -rf "$MACHINE_STATE"
  rm -f /var/lib/cni/results/weft-pods*
  if [ -f "$MACHINE_RUN/not-ours-before" ]; then
    while read -r place; do
      # Names are checked again: a file must not decide what root deletes.
      case " $FIXED_PLACES " in *" $place "*) unmount_below "$place"; rm -rf "$place" ;; esac
    done < "$MACHINE_RUN/not-ours-before"
  fi
  rmdir "${MACHINE_STATE%/*}" 2>/dev/null || true
  # The lock stays: another process may be waiting for it.
  find "$MACHINE_RUN" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
  rm -f "$CLUSTER_DIR/kubeconfig"
  rm -rf "$CLUSTER_DIR"/node[0-9]*
}
