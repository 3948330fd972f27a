# Debian packages that the cluster needs, as "program:package".

PACKAGES="containerd:containerd runc:runc iptables:iptables ip:iproute2 conntrack:conntrack
  ethtool:ethtool nft:nftables openssl:openssl nsenter:util-linux flock:util-linux mount:mount sysctl:procps
  python3:python3 strip:binutils cc:gcc"
CNI_BIN=/usr/lib/cni

missing_packages() {
  local pair
  for pair in $PACKAGES; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
  done
  # It goes with containerd and has no program in the path.
  [[ $PACKAGES != *containerd* ]] || [ -x "$CNI_BIN/bridge" ] || echo containernetworking-plugins
}

# Installs what is missing when root, else names all of it at once.
require_packages() {
  # Debian keeps these out of an ordinary user's path.
  PATH=$PATH:/usr/sbin:/sbin
  local missing
  missing=$(missing_packages | sort -u | tr '\n' ' ')
  [ -n "${missing// /}" ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "please install: $missing(Debian: apt-get install $missing)"
  fi
  # shellcheck disable=SC2086
  step "installing Debian packages: $missing" install_packages $missing
  missing=$(missing_packages | tr '\n' ' ')
  [ -z "${missing// /}" ] || fail "still missing after installing: $missing"
}

install_packages() {
  local log status=0
  log=$(mktemp)
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
    </dev/null >"$log" 2>&1 || status=$?
  [ "$status" = 0 ] || tail -20 "$log" >&2
  rm -f "$log"
  return "$status"
}

require_root() {
  [ "$(id -u)" = 0 ] || fail "the local cluster needs root: network namespaces, mounts, cgroups. Or use your own: CLUSTER=external KUBECONFIG=..."
}

# Chromium, and what the page of the dashboard is built and judged with.
require_browser() (
  PACKAGES="chromium:chromium node:nodejs npm:npm" require_packages
  cd "$ROOT/dashboard" || exit 1
  if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
    step "installing the dashboard's npm packages" npm ci --silent --ignore-scripts </dev/null
  fi
)
