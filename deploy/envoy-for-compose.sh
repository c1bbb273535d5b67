#!/bin/sh
# deploy/envoy/envoy.yaml as compose.yaml needs it: reachable from outside of its container, the replicas by their names,
# TLS on both sides, callers that have to show a certificate, and replicas that have to show one of their own name: for some
# seconds after they were started anew, the address that Envoy knows may be the other's. While a replica is away its name has
# no address; calls wait for it where nobody listens, as they would at the address that it had. Prints the result with --print.
set -eu
from=${ENVOY_DIRECTORY:-/etc/envoy}
tls=${ENVOY_TLS:-/etc/envoy-tls}
made=${TMPDIR:-/tmp}/envoy.yaml
waiting() {  # REPLICA, a port of Envoy's own container where nobody listens
  nobody="- endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $2}}}"
  printf %s 's/^\( *\)  metadata: {filter_metadata: {envoy.lb: {replica: '"$1"'}}}$/&\n\1'"$nobody"'\n&/'
}
changed() {
  sed -e 's/^#tls //' -e 's/^#mtls //' "$from/envoy.yaml" | sed \
    -e 's/{address: 127\.0\.0\.1, port_value: 50050}/{address: 0.0.0.0, port_value: 50050}/' \
    -e 's/{address: 127\.0\.0\.1, port_value: 50051}/{address: one, port_value: 50051}/' \
    -e 's/{address: 127\.0\.0\.1, port_value: 50052}/{address: two, port_value: 50051}/' \
    -e "$(waiting one 1)" -e "$(waiting two 2)" \
    -e 's/^\( *\)"@type": .*\.DownstreamTlsContext$/&\n\1require_client_certificate: true/' \
    -e 's/^\( *\)"@type": .*\.UpstreamTlsContext$/&\n\1auto_host_sni: true\n\1auto_sni_san_validation: true/' \
    -e '/^ *match_typed_subject_alt_names:$/,+1d' \
    -e 's/^\( *\)  private_key: {filename: tls\/edge\.key}$/&\n\1validation_context: {trusted_ca: {filename: tls\/ca.pem}}/' |
    sed -e "s#filename: tls/#filename: $tls/#" -e "s#agentic_isolation\.binpb#$from/agentic_isolation.binpb#"
}
readable() {  # PATH, what to do
  [ -r "$1" ] || { echo "$1 cannot be read by $(id -u):$(id -g): $2" >&2; exit 1; }
}
readable "$from/envoy.yaml" "it is deploy/envoy/envoy.yaml"
if [ "${1:-}" = --print ]; then
  changed
  exit
fi
readable "$from/agentic_isolation.binpb" "make it by 'make envoy'"
for key in edge envoy; do
  readable "$tls/$key.key" "deploy/trial.sh makes it and, as root, lets the group 10001 read it"
done
changed > "$made"
# A call has its line in the access log; of what it was read by (misc) Envoy would tell several more.
exec envoy -c "$made" --drain-time-s 20 --component-log-level misc:warning
