# etcd, API server, controller manager and scheduler, in the host's own network.

start_control_plane() {
  start etcd "$TOOLS_BIN/etcd" --data-dir "$MACHINE_STATE/etcd" --log-level warn \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster "default=http://127.0.0.1:$ETCD_PEER_PORT" \
    --unsafe-no-fsync # nothing here must survive a power cut

  # Aggregator routing: there is no kube-proxy beside the API server, so it has to
  # call webhooks at their pods' addresses, for which the host has routes.
  start kube-apiserver "$TOOLS_BIN/kube-apiserver" \
    --etcd-servers "http://127.0.0.1:$ETCD_PORT" \
    --bind-address "$HOST_IP" --advertise-address "$HOST_IP" --secure-port 6443 \
    --service-cluster-ip-range "$SERVICE_NET" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --client-ca-file "$PKI/ca.crt" \
    --service-account-key-file "$PKI/sa.pub" --service-account-signing-key-file "$PKI/sa.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --authorization-mode Node,RBAC --allow-privileged=true \
    --requestheader-client-ca-file "$PKI/ca.crt" --requestheader-allowed-names front-proxy \
    --requestheader-extra-headers-prefix X-Remote-Extra- --requestheader-group-headers X-Remote-Group \
    --requestheader-username-headers X-Remote-User \
    --proxy-client-cert-file "$PKI/front-proxy.crt" --proxy-client-key-file "$PKI/front-proxy.key" \
    --kubelet-client-certificate "$PKI/admin.crt" --kubelet-client-key "$PKI/admin.key" \
    --kubelet-preferred-address-types InternalIP \
    --enable-aggregator-routing=true
  until_true 60 "API server is ready" kubectl get --raw /readyz

  # Faster than the default 20 requests/s: tests make hundreds of objects.
  local user=kube-controller-manager
  start $user "$TOOLS_BIN/$user" --bind-address 127.0.0.1 --leader-elect=false \
    --kubeconfig "$PKI/$user.kubeconfig" --authentication-kubeconfig "$PKI/$user.kubeconfig" \
    --authorization-kubeconfig "$PKI/$user.kubeconfig" \
    --service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" \
    --use-service-account-credentials --node-monitor-grace-period=20s \
    --kube-api-qps 200 --kube-api-burst 400
  user=kube-scheduler
  start $user "$TOOLS_BIN/$user" --bind-address 127.0.0.1 --leader-elect=false \
    --kubeconfig "$PKI/$user.kubeconfig" --authentication-kubeconfig "$PKI/$user.kubeconfig" \
    --authorization-kubeconfig "$PKI/$user.kubeconfig" \
    --kube-api-qps 200 --kube-api-burst 400
}
