# Keys and certificates of the cluster, made anew with every start.
#
# pki/sa.key signs service-account tokens; tests use it to make expired ones.

make_pki() {
  rm -rf "$PKI"
  mkdir -p "$PKI"
  (
    cd "$PKI"
    umask 077
    openssl ecparam -genkey -name prime256v1 -noout -out ca.key
    openssl req -x509 -new -key ca.key -subj /CN=weft-local-cluster -days 3650 -out ca.crt
    openssl genrsa -out sa.key 2048
    openssl rsa -in sa.key -pubout -out sa.pub
    certify apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$HOST_IP,IP:$SERVICE_API_IP"
    certify admin /O=system:masters/CN=admin
    certify kube-controller-manager /CN=system:kube-controller-manager
    certify kube-scheduler /CN=system:kube-scheduler
    certify kube-proxy /CN=system:kube-proxy
    certify front-proxy /CN=front-proxy
    for node in $NODES; do
      # The API server calls kubelets by address, so the address must be a SAN.
      certify "node$node" "/O=system:nodes/CN=system:node:node$node" "DNS:node$node,IP:$(node_ip "$node")"
    done
  ) >"$LOGS/pki.log" 2>&1
  for user in kube-controller-manager kube-scheduler kube-proxy $(printf 'node%s ' $NODES); do
    kubeconfig "$user" > "$PKI/$user.kubeconfig"
  done
}

# certify NAME SUBJECT [ALTERNATIVE_NAMES]
certify() {
  openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out "$1.crt" \
    -extfile <(echo "subjectAltName=${3:-DNS:$1}"; echo "extendedKeyUsage=serverAuth,clientAuth")
  rm "$1.csr"
}

# kubeconfig USER: whole in itself, so that it can be copied elsewhere.
kubeconfig() {
  cat <<K
apiVersion: v1
kind: Config
clusters:
- name: weft-local
  cluster: {server: "https://$HOST_IP:6443", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}
contexts:
- name: weft-local
  context: {cluster: weft-local, user: $1}
current-context: weft-local
K
}
