#!/bin/sh
# Two networks behind this pod, which forwards between them: prints how many of 20 connections
# from one to the other came about. Needs a privileged container.
set -eu
echo 1 > /proc/sys/net/ipv4/ip_forward
mkdir -p /run/field
join() { # NAME NET
  unshare -n sleep 60 &
  eval "$1=$!"
  sleep 0.3
  ip link add "v$1" type veth peer name "e$1"
  ip link set "e$1" netns "$(eval "echo \$$1")"
  ip address add "$2.1/24" dev "v$1"
  ip link set "v$1" up
  nsenter -t "$(eval "echo \$$1")" -n ip address add "$2.2/24" dev "e$1"
  nsenter -t "$(eval "echo \$$1")" -n ip link set "e$1" up
  nsenter -t "$(eval "echo \$$1")" -n ip route add default via "$2.1"
}
join left 192.168.71
join right 192.168.72
nsenter -t "$right" -n /usr/bin/python3 /field/serve.py http 8080 &
server=$!
sleep 1
nsenter -t "$left" -n /usr/bin/python3 /field/call.py many 192.168.72.2 8080 20
kill "$server" "$left" "$right"
