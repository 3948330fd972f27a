# grpc-go's own interop client: grpc_interop.sh PROGRAM HOST PORT. All cases that need no
# credentials of a cloud; the soak tests are the loads of the same row.
#
# In cancel_after_begin the client races with itself: it ends its stream right after it
# cancelled it, and is answered now and then, directly too. So that case has three tries,
# everywhere; a place where it never works still shows.
for case in empty_unary large_unary client_streaming server_streaming ping_pong empty_stream \
  timeout_on_sleeping_server cancel_after_begin cancel_after_first_response status_code_and_message \
  special_status_message custom_metadata unimplemented_method unimplemented_service; do
  tries=1
  [ "$case" != cancel_after_begin ] || tries=3
  while :; do
    said=$(timeout 20 "$1" --use_tls=false --server_host="$2" --server_port="$3" --test_case="$case" 2>&1)
    status=$?
    tries=$((tries - 1))
    [ "$status" != 0 ] && [ "$tries" -gt 0 ] || break
  done
  echo "$case: $status"
  [ "$status" = 0 ] || echo "$said" | tail -3
done
