# psql with and without TLS, COPY both ways, a cancelled query, a dump's worth of rows.
host=$1 port=$2
q() { timeout 30 psql "host=$host port=$port user=postgres dbname=postgres sslmode=$1" -v ON_ERROR_STOP=0 -XAtq "${@:2}" 2>&1; }
echo "== in clear"; q disable -c 'select 1' -c 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'
echo "== TLS by upgrade"; q require -c 'select ssl, version from pg_stat_ssl where pid = pg_backend_pid()'
for mode in disable require; do
  echo "== COPY, $mode"
  q $mode -c 'drop table if exists t' -c 'create table t (n int, text text)' | grep -v NOTICE
  seq 50000 | awk '{ print $1 "\t" "row " $1 }' | q $mode -c 'copy t from stdin'
  q $mode -c 'select count(*), sum(n) from t'
  q $mode -c 'copy t to stdout' | sha256sum
done
echo "== cancel"
# Ctrl-C of psql opens a second connection, which sends the request and is closed.
timeout -s INT 2 psql "host=$host port=$port user=postgres dbname=postgres sslmode=disable" -XAtqc 'select pg_sleep(20)' 2>&1
echo "== notice and error"; q disable -c "do \$\$ begin raise notice 'n'; end \$\$" -c 'select 1/0'
echo "== listen"; printf "listen c;\nnotify c, 'payload';\nselect 1;\n" | q disable | sed -E 's/PID [0-9]+/PID/'
echo "== 50 at once"; seq 50 | xargs -P50 -I{} timeout 30 psql "host=$host port=$port user=postgres dbname=postgres" -XAtqc 'select sum(n) from t' | sort | uniq -c
