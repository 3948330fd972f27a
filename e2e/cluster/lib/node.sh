# One node: a network namespace on the bridge with containerd, kubelet and
# kube-proxy in it. kube-proxy thus never touches the host's own rules, and a node
# fails when its veth goes down.

# Percent of its filesystem below which a kubelet takes no pod and evicts those it has.
EVICTED_BELOW=1

make_bridge() {
  local outside
  ip link add "$BRIDGE" type bridge
  ip address add "$HOST_IP/$NODE_NET_LENGTH" dev "$BRIDGE"
  # Nodes have no route to these but the one by way of the host.
  for outside in $OUTSIDE_IPS; do
    ip address add "$outside/32" dev "$BRIDGE"
  done
  ip link set "$BRIDGE" up
  sysctl -n net.ipv4.ip_forward > "$MACHINE_RUN/ip-forward-before"
  sysctl -qw net.ipv4.ip_forward=1
}

make_node_network() {
  local node=$1 other netns veth
  netns=$(node_netns "$node") veth=$(node_veth "$node")
  ip netns add "$netns"
  ip link add "$veth" type veth peer name eth0 netns "$netns"
  ip link set "$veth" master "$BRIDGE" up
  in_node "$node" ip address add "$(node_ip "$node")/$NODE_NET_LENGTH" dev eth0
  in_node "$node" ip link set lo up
  in_node "$node" ip link set eth0 up
  in_node "$node" ip route add default via "$HOST_IP"
  in_node "$node" sysctl -qw net.ipv4.ip_forward=1
  for other in $NODES; do
    [ "$other" = "$node" ] || in_node "$node" ip route add "$(node_pods "$other")" via "$(node_ip "$other")"
  done
  ip route add "$(node_pods "$node")" via "$(node_ip "$node")"
  if [ "$node" = "${NODES%% *}" ]; then
    ip route add "$LOAD_BALANCER_NET" via "$(node_ip "$node")"
    # What no Service has would go to the host and back.
    in_node "$node" ip route add unreachable "$LOAD_BALANCER_NET"
  fi
}

start_containerd() {
  local node=$1 state run
  state=$(node_state "$node") run=$(dirname "$(node_socket "$node")")
  mkdir -p "$state/cni" "$run" "$CLUSTER_DIR/node$node"
  ln -sfn "$(node_socket "$node")" "$CLUSTER_DIR/node$node/containerd.sock"
  # Restricting oom_score_adj: without CAP_SYS_RESOURCE runc may not lower it, and
  # dies of it with a message about a pipe.
  cat > "$state/containerd.toml" <<K
version = 2
root = "$state/containerd"
state = "$run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "$(node_socket "$node")"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$(snapshotter)"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI_BIN"
    conf_dir = "$state/cni"
K
  cat > "$state/cni/10-pods.conflist" <<K
{"cniVersion": "0.4.0", "name": "weft-pods$node", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$state/addresses",
            "ranges": [[{"subnet": "$(node_pods "$node")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
K
  # A node has only its own pods in /run/netns, as a machine has: containerd has mounts of its own.
  # What kubelets mount reaches them, and the machine sees the namespaces below the node's state.
  # Their root is shared, as that of machines is: containerd refuses propagation from another.
  share "$state/kubelet"
  share "$state/netns"
  start "containerd$node" nsenter --net="/run/netns/$(node_netns "$node")" \
    unshare --mount --propagation unchanged sh -c \
    'mount --make-shared / && mount --make-slave /run/netns && mount --bind "$0" /run/netns && exec containerd --config "$1"' \
    "$state/netns" "$state/containerd.toml"
}

# Makes a folder whose mounts are the same in all mount namespaces that are made later.
share() {
  mkdir -p "$1"
  mount --bind "$1" "$1"
  mount --make-shared "$1"
}

# Overlay where the disk can carry one; a root that is an overlay itself cannot.
snapshotter() {
  local probe=$MACHINE_STATE/overlay-probe
  if [ ! -f "$MACHINE_STATE/snapshotter" ]; then
    mkdir -p "$probe"/{lower,upper,work,merged}
    if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
      umount "$probe/merged"
      echo overlayfs > "$MACHINE_STATE/snapshotter"
    else
      echo native > "$MACHINE_STATE/snapshotter"
    fi
    rm -rf "$probe"
  fi
  cat "$MACHINE_STATE/snapshotter"
}

start_kubelet() {
  local node=$1 state
  state=$(node_state "$node")
  # cgroupfs and failCgroupV1: works with both cgroup versions, without systemd.
  cat > "$state/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/node$node
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
clusterDNS: [$SERVICE_DNS_IP]
clusterDomain: cluster.local
resolvConf: ""
containerRuntimeEndpoint: unix://$(node_socket "$node")
podLogsDir: $state/pod-logs
volumePluginDir: $state/volume-plugins
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/node$node.crt
tlsPrivateKeyFile: $PKI/node$node.key
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: $EVICTED_BELOW%, imagefs.available: $EVICTED_BELOW%}
nodeStatusUpdateFrequency: 4s
syncFrequency: 15s
maxPods: 200
K
  start "kubelet$node" nsenter --net="/run/netns/$(node_netns "$node")" "$TOOLS_BIN/kubelet" \
    --config "$state/kubelet.yaml" --kubeconfig "$PKI/node$node.kubeconfig" --hostname-override "node$node" \
    --root-dir "$state/kubelet" --node-ip "$(node_ip "$node")" \
    --node-labels "topology.kubernetes.io/zone=zone-$node,topology.kubernetes.io/region=local"
}

start_kube_proxy() {
  local node=$1 state
  state=$(node_state "$node")
  cat > "$state/kube-proxy.yaml" <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/kube-proxy.kubeconfig}
mode: iptables
clusterCIDR: $POD_NET
hostnameOverride: node$node
conntrack: {maxPerCore: 0}
iptables: {minSyncPeriod: 100ms, syncPeriod: 30s}
K
  start "kube-proxy$node" nsenter --net="/run/netns/$(node_netns "$node")" "$TOOLS_BIN/kube-proxy" --config "$state/kube-proxy.yaml"
}

nodes_ready() {
  local ready
  ready=$(kubectl get nodes --no-headers 2>/dev/null | awk '$2 == "Ready"' | wc -l)
  [ "$ready" = "$(wc -w <<< "$NODES")" ]
}
