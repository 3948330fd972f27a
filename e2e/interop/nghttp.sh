# nghttp's calls of the pages that every server has.
base=$1
echo "== one"; nghttp "$base/hello"
echo "== many on one connection"; nghttp -m 20 "$base/bytes/100000" | wc -c
echo "== several paths"; nghttp "$base/hello" "$base/bytes/10" "$base/none" | tr -d '\r'
echo "== POST"; nghttp -d <(head -c 100000 /dev/zero) -H ':method: POST' -nv "$base/hello" | grep -aoE ':status: [0-9]+'
echo "== POST without content-length"; nghttp --no-content-length -d <(printf x) -H ':method: POST' -nv "$base/hello" | grep -aoE ':status: [0-9]+'
