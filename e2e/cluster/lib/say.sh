# What a person sees: one line per step, with the seconds since the start.

SAY_START=$SECONDS

say() {
  printf '[%4ds] %s\n' $((SECONDS - SAY_START)) "$*" >&2
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# step TEXT COMMAND...: announces the command, shows that it runs, and ends this
# script when it fails.
step() {
  local text=$1 started=$SECONDS status
  say "$text"
  shift
  # A plain `with_pulse ... || fail` would switch off errexit inside the command.
  set +e
  with_pulse "$text" "$@"
  status=$?
  set -e
  [ "$status" = 0 ] || fail "$text failed after $((SECONDS - started)) s (status $status)"
}

# with_pulse TEXT COMMAND...: prints every ten seconds that the command still runs, so
# that silence always means that it hangs. Returns its status.
with_pulse() {
  local text=$1 pulse status
  shift
  (
    # A pulse that outlives a killed script would hold its caller's pipe open.
    # It waits by `read`, since a `sleep` would outlive it.
    exec 7<> <(:)
    while ! read -rt 10 -u 7 && kill -0 $$ 2>/dev/null; do say "  still $text"; done
  ) 8>&- 9>&- </dev/null >/dev/null &
  pulse=$!
  (set -e; "$@")
  status=$?
  kill "$pulse" 2>/dev/null
  wait "$pulse" 2>/dev/null
  return "$status"
}

# until_true SECONDS TEXT COMMAND...: polls a quick command.
until_true() {
  local seconds=$1 text=$2 started=$SECONDS reported=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $((SECONDS - started)) -ge "$seconds" ]; then
      fail "$text: not within $seconds s; logs are in ${LOGS:-target/cluster/log}"
    fi
    if [ $((SECONDS - reported)) -ge 10 ]; then
      reported=$SECONDS
      say "  still waiting: $text"
    fi
    sleep 0.2
  done
}
