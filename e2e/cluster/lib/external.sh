# CLUSTER=external: the user's own cluster, named by KUBECONFIG, is used as it is.

leave_external_cluster_alone() {
  [ "${CLUSTER:-}" = external ] || return 0
  [ -n "${KUBECONFIG:-}" ] || fail "CLUSTER=external needs KUBECONFIG"
  say "CLUSTER=external: using the cluster of KUBECONFIG=$KUBECONFIG, $1"
  exit 0
}
