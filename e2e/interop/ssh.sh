# ssh and scp, where the server speaks first and both talk at will.
o="-F none -i user_key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes"
s() { timeout 30 ssh $o -p "$2" "root@$1" "${@:3}"; }
s "$1" "$2" 'echo over ssh'
s "$1" "$2" 'exit 3'; echo "status $?"
head -c 5000000 /dev/zero | s "$1" "$2" 'sha256sum'
s "$1" "$2" 'head -c 5000000 /dev/zero' | sha256sum
head -c 100000 /dev/zero > sent-$$
timeout 30 scp -q $o -P "$2" sent-$$ "root@$1:$PWD/got-$$"; cmp sent-$$ got-$$ && echo same
rm -f sent-$$ got-$$
for n in 1 2 3; do echo "line $n"; sleep 0.3; done | s "$1" "$2" cat
echo "== 50 at once"
seq 50 | xargs -P50 -I{} sh -c "head -c 100000 /dev/zero | timeout 60 ssh $o -p $2 root@$1 sha256sum" | sort | uniq -c
# A client that is killed in the middle of what it reads or sends: NUMBER HOST PORT INPUT
# COMMAND BYTES, of which it has read so many by then.
killed() {
  local got=killed-$$-$1
  mkfifo "$got"
  ssh $o -p "$3" "root@$2" "$5" < "$4" > "$got" &
  # Open until the end, so that neither side sees its end before the kill.
  exec 9< "$got"
  head -c "$6" <&9 | wc -c
  kill -KILL $!
  exec 9<&-
  rm -f "$got"
}
echo "== 20 killed while they read"
for n in $(seq 20); do (killed "$n" "$1" "$2" /dev/null 'cat /dev/zero' 100000) & done 2>/dev/null | sort | uniq -c
echo "== 20 killed while they send"
for n in $(seq 20); do (killed "$n" "$1" "$2" /dev/zero 'head -c 1000000 | wc -c; cat > /dev/null' 8) & done 2>/dev/null | sort | uniq -c
echo "== behind them"
s "$1" "$2" 'echo goes on'
