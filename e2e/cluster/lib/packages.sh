# Debian packages that the cluster needs, as "program:package".

PACKAGES="containerd:containerd runc:runc iptables:iptables ip:iproute2 conntrack:conntrack
  ethtool:ethtool nft:nftables openssl:openssl nsenter:util-linux flock:util-linux mount:mount sysctl:procps
  python3:python3 strip:binutils cc:gcc"
CNI_BIN=/usr/lib/cni
# What compiles for arm64, and runs these programs.
ARM64_PACKAGES="aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64:qemu-user"
# How long another installation of packages is waited for.
APT_SECONDS=300

missing_packages() {
  local pair
  for pair in $PACKAGES; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
  done
  # The C library for it has no program.
  [[ $PACKAGES != *gcc-aarch64* ]] || [ -f "$(aarch64-linux-gnu-gcc -print-file-name=libc.a 2>/dev/null)" ] ||
    echo libc6-dev-arm64-cross
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

# Another run may install at the same time, and one that was killed leaves an apt-get that goes
# on, or packages that are unpacked and no more.
install_packages() {
  local log status started=$SECONDS
  log=$(mktemp)
  while :; do
    status=0
    apt_install "$@" </dev/null >"$log" 2>&1 || status=$?
    [ "$status" != 0 ] && [ $((SECONDS - started)) -lt "$APT_SECONDS" ] || break
    if grep -q 'dpkg was interrupted' "$log"; then
      DEBIAN_FRONTEND=noninteractive dpkg --configure -a </dev/null >>"$log" 2>&1 || break
    else
      # apt-get waits for none of its locks but dpkg's.
      grep -q 'Could not get lock' "$log" || break
    fi
    sleep 2
  done
  [ "$status" = 0 ] || tail -20 "$log" >&2
  rm -f "$log"
  return "$status"
}

# Errors come in English, which the caller searches, whatever the user's language is.
apt_install() (
  export LC_ALL=C DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"
)

require_root() {
  [ "$(id -u)" = 0 ] || fail "the local cluster needs root: network namespaces, mounts, cgroups. Or use your own: CLUSTER=external KUBECONFIG=..."
}

# Chromium, and the tools that build and check the page of the dashboard.
require_browser() (
  PACKAGES="chromium:chromium node:nodejs npm:npm" require_packages
  cd "$ROOT/dashboard" || exit 1
  if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
    step "installing the dashboard's npm packages" npm ci --silent --ignore-scripts </dev/null
  fi
)
