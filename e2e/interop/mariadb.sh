# MariaDB's client, where the server speaks first.
host=$1 port=$2
q() { timeout 30 mariadb --no-defaults -h "$host" -P "$port" -u root --skip-ssl -N "$@" 2>&1; }
q -e 'select 1'
q -e 'create database if not exists d; use d; drop table if exists t; create table t (n int, v text)'
seq 5000 | awk '{ print "insert into t values (" $1 ", repeat(\"x\", 50));" }' | sed '1i begin;' | sed '$a commit;' | q d
echo "sum $(q -e 'select sum(n), count(*) from d.t')"
q -e 'select * from d.t' | sha256sum
q -e 'select no_such_column from d.t'
seq 50 | xargs -P50 -I{} timeout 30 mariadb --no-defaults -h "$host" -P "$port" -u root --skip-ssl -N -e 'select count(*) from d.t' | sort | uniq -c
q -e 'select sleep(1.5)'
