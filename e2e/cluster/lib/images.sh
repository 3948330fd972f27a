# The images that the cluster itself needs. They are packed like Weft's own, since
# there is no registry.

PAUSE_IMAGE=weft.local/cluster/pause:1
COREDNS_IMAGE=weft.local/cluster/coredns:1.14.7
HELLO_IMAGE=weft.local/cluster/hello:1
IMAGES_SOURCE=$CLUSTER_SOURCE/../images

# Weft's own, as "image program uid crate". The proxy's uid is part of the contract: capture
# exempts it.
WEFT_IMAGES="\
proxy weft-proxy 15190 proxy
controller weft-controller 65532 controller
injector weft-injector 65532 injector
gateway weft-gateway 65532 gateway
echo weft-echo 65532 e2e"

pack_cluster_images() {
  local program
  mkdir -p "$MACHINE_STATE/images"
  for program in pause coredns hello; do
    local -n image=${program^^}_IMAGE
    "$IMAGES_SOURCE/pack" --image "$image" --user 65532 --binary "$(readlink -f "$TOOLS_BIN/$program")" \
      --name "$program" --out "$MACHINE_STATE/images/$program.tar" >/dev/null
  done
}

# load_images ARCHIVE...: into all nodes at once.
load_images() {
  local node waiting=()
  for node in $NODES; do
    load_into_node "$node" "$@" &
    waiting+=($!)
  done
  for node in "${waiting[@]}"; do
    wait "$node"
  done
}

load_into_node() {
  local node=$1 archive
  shift
  for archive in "$@"; do
    ctr -a "$(node_socket "$node")" -n k8s.io images import --snapshotter "$(snapshotter)" "$archive" >/dev/null
  done
}
