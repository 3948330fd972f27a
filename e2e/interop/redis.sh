# redis-cli: commands, a pipe, large values, a subscription, a transaction.
r() { timeout 20 redis-cli -h "$1" -p "$2" "${@:3}"; }
h=$1 p=$2
r "$h" "$p" ping
r "$h" "$p" flushall
r "$h" "$p" set key value
r "$h" "$p" get key
r "$h" "$p" incr counter
head -c 5000000 /dev/zero | tr '\0' x | r "$h" "$p" -x set large
r "$h" "$p" strlen large
r "$h" "$p" get large | sha256sum
for n in $(seq 5000); do echo "SET k$n v$n"; done | r "$h" "$p" --pipe 2>&1 | tail -2
r "$h" "$p" dbsize
printf 'multi\nset a 1\nincr a\nexec\n' | r "$h" "$p"
timeout 2 redis-cli -h "$h" -p "$p" subscribe news > subscribed-$$ &
sleep 0.7
r "$h" "$p" publish news hello
wait
cat subscribed-$$; rm subscribed-$$
seq 50 | xargs -P50 -I{} timeout 20 redis-cli -h "$h" -p "$p" incrby together 1 > /dev/null
r "$h" "$p" get together
r "$h" "$p" debug jmap 2>&1 | head -1
