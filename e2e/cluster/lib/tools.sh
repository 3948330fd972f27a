# Builds the programs of the local cluster from their public Go modules.
#
# Each stands in a module of its own under e2e/cluster/tools, because their
# dependencies disagree. A result is kept under a hash of everything that goes
# into it, outside target/, since target/ is lost with every clone.

TOOLS_SOURCE=$CLUSTER_SOURCE/tools
TOOLS_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/weft/tools
TOOLS_BIN=$TARGET/tools/bin

# Oldest Go that knows `tool` lines and what the modules' own go.mod ask for.
GO_MINOR_AT_LEAST=25

# The definitions against which the chart's objects for the Prometheus Operator are validated.
PROMETHEUS_OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
PROMETHEUS_OPERATOR_SUM=h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=

# The definitions of the Gateway API, which the mesh reads and never installs.
GATEWAY_API=sigs.k8s.io/gateway-api@v1.6.3
GATEWAY_API_SUM=h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=

KUBERNETES_VERSION=v1.34.4
KUBERNETES_PARTS="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy"

# Builds what is not in the cache and links all of it into target/tools/bin.
build_tools() {
  # Without these stamps nodes report a placeholder, and clients that look at
  # the server's version refuse to work with it.
  local stamp=k8s.io/component-base/version
  local stamps="-X $stamp.gitVersion=$KUBERNETES_VERSION -X $stamp.gitMajor=1 -X $stamp.gitMinor=34"
  # shellcheck disable=SC2086
  tool kubernetes . "$stamps" $KUBERNETES_PARTS
  # Tests call it thousands of times, and by itself it starts in half the processor time.
  tool kubernetes k8s.io/kubernetes/cmd/kubectl "$stamps" kubectl
  tool etcd go.etcd.io/etcd/server/v3 "" etcd
  build_helm
  tool coredns . "" coredns
  tool pause . "" pause
  tool hello . "" hello
}

build_helm() {
  tool helm helm.sh/helm/v3/cmd/helm "" helm
}

# The progressive delivery controllers, which only `make conformance` runs: four
# minutes on two cores that no other target should wait for.
build_canary_tools() {
  tool flagger github.com/fluxcd/flagger/cmd/flagger "" flagger
  tool argo-rollouts github.com/argoproj/argo-rollouts/cmd/rollouts-controller "" rollouts-controller
}

# What `make drill` has own the mesh's issuer: the last version whose program is a package of its module.
build_cert_manager() {
  tool cert-manager github.com/cert-manager/cert-manager/cmd/controller "" cert-manager
}

# What the pods of the Gateway API's conformance suite run, which `make gateway-conformance` alone
# needs: Istio's test application, as server and as client.
build_gateway_echo() {
  tool gateway-echo istio.io/istio/pkg/test/echo/cmd/server "" gateway-echo-server
  tool gateway-echo istio.io/istio/pkg/test/echo/cmd/client "" gateway-echo-client
}

# What `make eyes` looks at traces with.
build_collector() {
  tool otelcol . "" otelcol
}

# Where the source of a module's dependency lies; their CRDs are there.
module_folder() {
  local module=$1 dependency=$2
  require_go
  (cd "$TOOLS_SOURCE/$module" && GOFLAGS=-mod=readonly go mod download "$dependency" && go list -m -f '{{.Dir}}' "$dependency")
}

# module_files MODULE@VERSION SUM: where the files of a module lie that nothing is built
# from; its sum is as go.sum would have it.
module_files() {
  local module
  require_go
  # Not in a module, whose versions would count.
  module=$(cd / && go mod download -json "$1")
  python3 -c '
import json, sys
module = json.loads(sys.argv[1])
if module["Sum"] != sys.argv[2]:
    sys.exit("error: %s has the sum %s" % (module["Path"], module["Sum"]))
print(module["Dir"])
' "$module" "$2"
}

# tool MODULE PACKAGE LDFLAGS NAME...: every NAME is the one program that MODULE builds of
# PACKAGE.
tool() {
  local module=$1 package=$2 ldflags="-s -w $3" name cached
  shift 3
  cached=$TOOLS_CACHE/$module-$(tool_hash "$module" "$package" "$ldflags")
  if [ ! -x "$cached/$module" ]; then
    mkdir -p "$TOOLS_CACHE"
    # Two scripts may want the same program at once, as the cluster and the tier prometheus
    # do with helm. The second one waits, and then finds it.
    (
      flock 8
      [ -x "$cached/$module" ] ||
        step "building $module from source" build_tool "$module" "$package" "$ldflags" "$cached"
    ) 8>"$cached.lock" || exit 1
  fi
  mkdir -p "$TOOLS_BIN"
  for name in "$@"; do
    ln -sfn "$cached/$module" "$TOOLS_BIN/$name"
  done
}

build_tool() {
  local module=$1 package=$2 ldflags=$3 cached=$4
  require_go
  mkdir -p "$cached"
  # Moved into place when whole, so that a killed build leaves no half program. Compilers are
  # spared what the linker would leave out: debug information.
  (cd "$TOOLS_SOURCE/$module" && CGO_ENABLED=0 GOFLAGS="-buildvcs=false -mod=readonly" \
    go build -trimpath -gcflags=all=-dwarf=false -ldflags "$ldflags" -o "$cached/.part" "$package")
  mv "$cached/.part" "$cached/$module"
}

tool_hash() {
  local module=$1
  shift
  {
    printf '%s\n' "$@"
    cat "$TOOLS_SOURCE/$module/go.mod"
    [ ! -f "$TOOLS_SOURCE/$module/go.sum" ] || cat "$TOOLS_SOURCE/$module/go.sum"
    [ ! -f "$TOOLS_SOURCE/$module/main.go" ] || cat "$TOOLS_SOURCE/$module/main.go"
  } | sha256sum | cut -c1-16
}

# require_go [MINOR]
require_go() {
  local minor least=${1:-$GO_MINOR_AT_LEAST}
  minor=$(go env GOVERSION 2>/dev/null | sed -nE 's/^go1\.([0-9]+).*/\1/p') || true
  [ "${minor:-0}" -ge "$least" ] ||
    fail "Go 1.$least or newer is needed to build the cluster's programs (https://go.dev/dl); found: $(go version 2>&1 | head -1)"
}
