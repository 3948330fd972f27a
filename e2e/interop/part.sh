# curl's calls of answers whose streams are reset with NO_ERROR before they end. curl takes
# that for the end of an answer without a length. Each has a connection of its own, since
# some versions fail without the mesh too where they use one again after that.
base=$1
for size in 1 20000 300000; do
  echo "== $size, 20 at once"
  seq 20 | xargs -P20 -I{} curl -s -m 20 --http2-prior-knowledge -o /dev/null -w '%{http_code} %{size_download} bytes curl %{exitcode}\n' "$base/part/$size" | sort | uniq -c
done
echo "== behind them"; curl -s -m 20 --http2-prior-knowledge -w '%{http_code}\n' "$base/hello"
