# grpc-go's own interop client: grpc_interop.sh PROGRAM HOST PORT. All cases that need no
# credentials of a cloud, but for pick_first_unary: grpc-go's server does not tell the id
# that it asks for.
#
# Load reports (orca) need the client's own way of choosing a server, which keeps them. The
# soak tests are short, since the same row has loads; their time limit is for a busy machine.
#
# In cancel_after_begin the client races with itself: it ends its stream right after it
# cancelled it, and is answered now and then, directly too. So that case has three tries,
# everywhere; a place where it never works still shows.
for case in empty_unary large_unary client_streaming server_streaming ping_pong empty_stream \
  timeout_on_sleeping_server cancel_after_begin cancel_after_first_response status_code_and_message \
  special_status_message custom_metadata unimplemented_method unimplemented_service \
  orca_per_rpc orca_oob rpc_soak channel_soak; do
  tries=1 more=()
  [ "$case" != cancel_after_begin ] || tries=3
  case $case in
    orca*) more=(--service_config_json='{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}') ;;
    *_soak) more=(--soak_iterations=40 --soak_num_threads=4 --soak_per_iteration_max_acceptable_latency_ms=10000
      --soak_overall_timeout_seconds=15) ;;
  esac
  while :; do
    said=$(timeout 20 "$1" --use_tls=false --server_host="$2" --server_port="$3" --test_case="$case" "${more[@]}" 2>&1)
    status=$?
    tries=$((tries - 1))
    [ "$status" != 0 ] && [ "$tries" -gt 0 ] || break
  done
  echo "$case: $status"
  [ "$status" = 0 ] || echo "$said" | tail -3
done
