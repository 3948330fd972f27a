# curl's calls of the pages that every server has.
base=$1
shown() { sed -E 's/^([Dd]ate|[Ll]ast-[Mm]odified|[Ee][Tt]ag): .*/\1: */' | tr -d '\r'; }
echo "== with headers"; curl -s -m 10 -i "$base/hello" | shown
echo "== three on one connection"; curl -s -m 10 -w '%{http_code} %{num_connects} %{size_download}\n' "$base/hello" "$base/hello" "$base/none"
echo "== HTTP/1.0"; curl -s -m 10 -0 -i "$base/hello" | shown
echo "== HEAD"; curl -s -m 10 -I "$base/bytes/1000" | shown
echo "== a range"; curl -s -m 10 -r 5-9 -w '%{http_code}\n' "$base/bytes/1000"
echo "== compressed, if it likes"; curl -s -m 10 --compressed -w '%{http_code} %{size_download}\n' -o /dev/null "$base/bytes/1000"
echo "== POST with Expect"; head -c 3000000 /dev/zero | curl -s -m 20 --expect100-timeout 5 -H 'Expect: 100-continue' -w '%{http_code}\n' -o /dev/null --data-binary @- "$base/hello"
echo "== POST in chunks"; head -c 300000 /dev/zero | curl -s -m 20 -H 'Transfer-Encoding: chunked' -w '%{http_code}\n' -o /dev/null -T - -X POST "$base/hello"
echo "== 50 at once"; seq 50 | xargs -P50 -I{} curl -s -m 20 -o /dev/null -w '%{http_code} %{size_download}\n' "$base/bytes/1000" | sort | uniq -c
