# curl asks for what no rule admits: refused.sh URL [OPTION of curl...]. Prints what all
# clients of refusals print.
base=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
body=$folder/body
shown() { head -c 17 "$1" | tr -d '\n'; }
ask() {
  local name=$1 status code=0
  shift
  : > "$body"
  status=$(curl -s -m 20 -o "$body" -w '%{http_code}' "$@") || code=$?
  [ "$code" = 0 ] || status="$status curl $code"
  echo "$name: $status $(shown "$body")" | sed 's/ *$//'
}
many=()
for _ in 1 2 3 4 5 6 7 8 9 10; do many+=(-o /dev/null "$base/private"); done
ask GET "$@" "$base/private"
# -I shows the head where others have a body.
ask HEAD "$@" -I "$base/private" | cut -d' ' -f1,2
# All by one call of curl, on the connection that it keeps.
said=$(curl -s -m 20 "$@" "${many[@]}" -o "$body" "$base/hello" -w '%{http_code} %{num_connects}\n')
echo "allowed behind them: $(tail -1 <<< "$said" | cut -d' ' -f1) $(shown "$body")"
echo "connections so far: $(awk '{ all += $2 } END { print all }' <<< "$said")"
ask "POST 1" "$@" -d x "$base/private"
head -c 1000000 /dev/zero | ask "POST 1000000" "$@" --data-binary @- "$base/private"
head -c 1000000 /dev/zero | ask "POST 1000000 of unknown length" "$@" -T - -X POST "$base/private"
head -c 10000 /dev/zero > "$folder/sent"
for n in $(seq 50); do
  curl -s -m 20 "$@" --data-binary "@$folder/sent" -o "$folder/body-$n" -w '%{http_code}' "$base/private" > "$folder/status-$n" &
done
wait
echo "50 at once: $(for n in $(seq 50); do echo "$(cat "$folder/status-$n") $(shown "$folder/body-$n")"; done | sort | uniq -c | awk '{ $1 = $1 " x"; print }' | paste -sd' ')"
ask "allowed at the end" "$@" "$base/hello"
