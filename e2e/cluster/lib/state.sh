# Which files there are, so that what has passed on them is not run again.

# A hash of every file that git tracks or would: what is committed, changed and new.
state_of_files() {
  local index status=0
  index=$(mktemp -u)
  # With git's own index only what has changed since is read.
  cp "$(git -C "$ROOT" rev-parse --path-format=absolute --git-path index)" "$index" 2>/dev/null || true
  GIT_INDEX_FILE=$index git -C "$ROOT" add --all &&
    GIT_INDEX_FILE=$index git -C "$ROOT" write-tree || status=1
  rm -f "$index"
  return "$status"
}
