# Reads all parts. A script sets CLUSTER_SOURCE to this folder's parent first.

for part in say names cargo packages supervised cgroups tools pki control-plane node disk images remove lock external state; do
  # shellcheck source=/dev/null
  . "$CLUSTER_SOURCE/lib/$part.sh"
done
unset part
