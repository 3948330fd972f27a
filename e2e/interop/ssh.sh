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
