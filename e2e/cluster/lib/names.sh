# Where everything of the local cluster is, and what it is called.
#
# Bridge, network namespaces, cgroups and mounts belong to the machine and outlive
# a checkout and a killed run. So their names are fixed: every start of a cluster
# finds and removes what an earlier run left behind, from whichever folder it came.

ROOT=$(cd "$CLUSTER_SOURCE/../.." && pwd -P)
TARGET=$ROOT/target

# Of this checkout: what tests and people use.
CLUSTER_DIR=$TARGET/cluster
PKI=$CLUSTER_DIR/pki
LOGS=$CLUSTER_DIR/log

# Of the machine. Sockets stand in a short place, since a path of a socket holds
# at most 108 bytes and a checkout's can be longer.
MACHINE_RUN=/run/weft
MACHINE_STATE=/var/lib/weft/cluster
BRIDGE=weft-br0
CGROUP=weft

NODES="1 2 3"
HOST_IP=10.199.0.1
# The host again, as addresses of the world beyond the cluster (e2e/src/harness/outside.rs).
OUTSIDE_IPS="203.0.113.1 203.0.113.2"
NODE_NET_LENGTH=24
POD_NET=10.244.0.0/16
SERVICE_NET=10.96.0.0/16
SERVICE_API_IP=10.96.0.1
SERVICE_DNS_IP=10.96.0.10
# Of Services of type LoadBalancer: a range that no network routes.
LOAD_BALANCER_NET=198.18.0.0/16
LOAD_BALANCERS=63000
# Not the usual 2379, where a machine may have an etcd of its own.
ETCD_PORT=12379
ETCD_PEER_PORT=12380

node_ip() { echo "10.199.0.$(($1 + 10))"; }
node_pods() { echo "10.244.$1.0/24"; }
load_balancer_ip() { echo "198.18.$(($1 / 250)).$(($1 % 250 + 1))"; }
node_netns() { echo "weft-node$1"; }
node_veth() { echo "weft-v$1"; }
# Real disk: images and containers.
node_state() { echo "$MACHINE_STATE/node$1"; }
node_socket() { echo "$MACHINE_RUN/node$1/containerd.sock"; }
in_node() {
  # Not `ip netns exec`, which hides /sys/fs/cgroup.
  local node=$1
  shift
  nsenter --net="/run/netns/$(node_netns "$node")" "$@"
}

# Tests and builds use this one, never a kubectl of the machine's.
kubectl() { "$TOOLS_BIN/kubectl" --kubeconfig "$CLUSTER_DIR/kubeconfig" "$@"; }
