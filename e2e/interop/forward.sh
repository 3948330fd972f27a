# curl's calls by way of a forward proxy, with the whole address as target: what the proxy was
# sent, which it says in headers, and what the server behind it answered.
to=$1 behind=$2
call() {
  curl -s -m 10 -i --noproxy '' -x "http://$to" "$@" | tr -d '\r' | tr '[:upper:]' '[:lower:]' |
    grep -E '^(x-(target|host|added):|hello)' | sort
}
echo "== GET"; call "$behind/hello?a=%41&b=c"
echo "== HEAD"; call -I "$behind/hello"
echo "== a path"; curl -s -m 10 -o /dev/null -w '%{http_code}\n' "http://$to/hello"
echo "== 20 at once"; seq 20 | xargs -P20 -I{} curl -s -m 10 --noproxy '' -x "http://$to" -o /dev/null -w '%{http_code} %{size_download}\n' "$behind/hello?{}" | sort | uniq -c
