#!/bin/sh
# Servers that need files first: start.sh nginx-allow|postgres|sentinel|replica ARGUMENT...
set -eu
own=$(hostname -i)

case $1 in
nginx-allow) # FRIEND: its address
  mkdir -p /tmp/pages
  echo page > /tmp/pages/index.html
  echo "allow $2;" > /tmp/friend
  echo "allow $own;" > /tmp/own
  exec /usr/sbin/nginx -e stderr -c /field/nginx-allow.conf
  ;;
postgres) # FRIEND: one user may come from there, one from the pod's own address, one by password
  bin=$(echo /usr/lib/postgresql/*/bin)
  $bin/initdb -D /tmp/data -U owner --auth=trust --no-sync --locale=C --encoding=UTF8 >/dev/null
  printf 'create role %s login;\n' friend own > /tmp/roles
  echo "create role guest login password 'guest';" >> /tmp/roles
  $bin/postgres --single -j -D /tmp/data postgres < /tmp/roles >/dev/null
  {
    echo "host all friend $2/32 trust"
    echo "host all own $own/32 trust"
    echo "host all guest 0.0.0.0/0 scram-sha-256"
  } > /tmp/data/pg_hba.conf
  exec $bin/postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
  ;;
replica) # MASTER [announced]
  [ "${3:-}" != announced ] || set -- "$1" "$2" --replica-announce-ip "$own" --replica-announce-port 6379
  master=$2
  shift 2
  exec /usr/bin/redis-server --save '' --dir /tmp --protected-mode no --replicaof "$master" 6379 "$@"
  ;;
sentinel) # MASTER
  {
    echo "sentinel resolve-hostnames yes"
    echo "sentinel monitor main $2 6379 1"
  } > /tmp/sentinel.conf
  exec /usr/bin/redis-server /tmp/sentinel.conf --sentinel --port 26379 --dir /tmp --protected-mode no
  ;;
esac
