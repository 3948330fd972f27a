# The application's own TLS, which the mesh passes on as it is: https.sh HOST PORT
base=https://app:$2
c() { curl -s -m 20 --cacert tls.pem --connect-to "app:$2:$1:$2" "${@:3}"; }
echo "== HTTP/1.1"; c "$1" "$2" --http1.1 -w '%{http_version} %{http_code} %{ssl_verify_result}\n' "$base/hello"
echo "== HTTP/2 by ALPN"; c "$1" "$2" --http2 -w '%{http_version} %{http_code}\n' "$base/hello"
echo "== 5 MB"; c "$1" "$2" --http2 "$base/bytes/5000000" | sha256sum
echo "== the certificate is the server's"; echo | openssl s_client -connect "$1:$2" -servername app 2>/dev/null | openssl x509 -noout -subject
echo "== a foreign authority"; curl -s -m 5 --connect-to "app:$2:$1:$2" "$base/hello"; echo "status $?"
echo "== 50 at once"; seq 50 | xargs -P50 -I{} curl -s -m 20 --cacert tls.pem --connect-to "app:$2:$1:$2" -o /dev/null -w '%{http_code} %{size_download}\n' "$base/bytes/100000" | sort | uniq -c
