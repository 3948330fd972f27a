# The free disk space that the cluster needs. With a full disk a kubelet accepts no pod, and a
# wait for its pods only times out.

# For images, containers and logs, beyond what a kubelet wants free.
DISK_MARGIN_GIB=3

# lack_of_disk: one line about the first filesystem with too little free, of the build's and
# the nodes' own. Its status is 1 when both have enough, or do not report it.
lack_of_disk() {
  local folder of free size needed
  for folder in "$TARGET" "$MACHINE_STATE"; do
    of=$folder
    until [ -e "$of" ]; do of=$(dirname "$of"); done
    # KiB, and a size that counts what is kept for root, as the kubelet counts.
    read -r size free < <(df -Pk "$of" | awk 'NR == 2 { print $2, $4 }') || continue
    # Some filesystems report none: no size, or a dash.
    [[ $size =~ ^[1-9][0-9]*$ && $free =~ ^[0-9]+$ ]] || continue
    needed=$((size * EVICTED_BELOW / 100 + DISK_MARGIN_GIB * 1024 * 1024))
    if [ "$free" -lt "$needed" ]; then
      echo "the disk of $folder has $((free / 1024)) MiB free of $((size / 1024)), and the local cluster needs $((needed / 1024)):" \
        "$EVICTED_BELOW % of it, below which kubelets evict every pod, and $DISK_MARGIN_GIB GiB for images and logs." \
        "Make room, for example with \`cargo clean\`, or use your own cluster: CLUSTER=external KUBECONFIG=..."
      return 0
    fi
  done
  return 1
}

require_disk() {
  local lack
  ! lack=$(lack_of_disk) || fail "$lack"
}
