# 30 calls of curl, one behind the other within a second, of a server whose queue of
# connections is full most of that time. Each third one leaves after 0.3 s, answered or not;
# all others must be answered.
export base=$1
call() {
  local number=$1 seconds=5 who=stayed
  shift
  [ $((number % 3)) != 0 ] || { seconds=0.3 who=left; }
  sleep "0.$(printf %03d $((number * 33)))"
  curl -s --max-time "$seconds" -o /dev/null -w "$who %{http_code} %{size_download} bytes curl %{exitcode} %{time_total}\n" "$@" "$base/hello"
}
export -f call
round() {
  local name=$1 said
  shift
  said=$(seq 30 | xargs -P30 -I{} bash -c 'call "$@"' call {} "$@")
  echo "== $name"
  # Who left may have been answered before; how many were depends on the moment.
  sed -E 's/ [0-9.]+$//; s/^left (200|000) [0-9]+ bytes curl (0|28)$/left/' <<< "$said" | sort | uniq -c
  # By the pace of the server alone, so in every place.
  echo "longest wait: $(awk '$NF > 0.8 { full = 1 } END { print full ? "for the queue" : "none" }' <<< "$said")"
  echo "behind them: $(curl -s --max-time 5 -w ' %{http_code}' "$base/hello" | tr -d '\n')"
}
round GET
round POST -d posted
