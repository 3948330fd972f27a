#!/bin/sh
# Two networks behind this pod, which forwards between them: calls from one to the other, as
# call.py prints them. Needs a privileged container.
set -eu
echo 1 > /proc/sys/net/ipv4/ip_forward
trap 'kill $left $right $server' EXIT
left= right= server=

# attach PID NAME NETWORK: a network of its own for the process, and this pod as its router.
attach() {
  /usr/sbin/ip link add "v$2" type veth peer name "e$2"
  /usr/sbin/ip link set "e$2" netns "$1"
  /usr/sbin/ip address add "$3.1/24" dev "v$2"
  /usr/sbin/ip link set "v$2" up
  nsenter -t "$1" -n /usr/sbin/ip address add "$3.2/24" dev "e$2"
  nsenter -t "$1" -n /usr/sbin/ip link set "e$2" up
  nsenter -t "$1" -n /usr/sbin/ip route add default via "$3.1"
}

# A second time would find the names of the first one.
/usr/sbin/ip link del vleft 2>/dev/null || true
/usr/sbin/ip link del vright 2>/dev/null || true
unshare -n sleep 120 >/dev/null 2>&1 & left=$!
unshare -n sleep 120 >/dev/null 2>&1 & right=$!
sleep 1
attach "$left" left 192.168.71
attach "$right" right 192.168.72
nsenter -t "$right" -n /usr/bin/python3 /field/serve.py http 8080 >/dev/null 2>&1 & server=$!
sleep 2
nsenter -t "$left" -n /usr/bin/python3 /field/call.py many 192.168.72.2 8080 20
