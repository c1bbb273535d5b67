#!/usr/bin/env bash
# What compose.yaml needs for trying it out, of an authority that is thrown away:  deploy/trial.sh DIRECTORY
#
# Each certificate as .pem and .key, for 30 days, and ca.pem beside it: one/replica and two/replica (a server of that name
# and of the name agentic-isolation, and a client for its own health checks), envoy/edge (Envoy towards clients, localhost),
# envoy/envoy (Envoy towards replicas, a client) and client; client.token; and service.toml, the replicas' configuration,
# which knows that token. In production let somebody issue certificates who also replaces them in time: cert-manager,
# Vault, step-ca, SPIRE.
set -euo pipefail
directory=${1:?where to put it}
mkdir -p "$directory"
cd "$directory"
umask 077
mkdir -p one two envoy

key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -days 30 -subj "/CN=agentic-isolation trial authority" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null

issue() {  # NAME, subjectAltName, extendedKeyUsage
  openssl req "${key[@]}" -keyout "$1.key" -subj "/CN=${1##*/}" 2>/dev/null |
    openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out "$1.pem" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$2" "$3") 2>/dev/null
}
# By its own name Envoy knows a replica, whoever has its address.
for name in one two; do
  issue $name/replica DNS:$name,DNS:agentic-isolation serverAuth,clientAuth
done
issue envoy/edge DNS:localhost,IP:127.0.0.1 serverAuth
issue envoy/envoy URI:spiffe://agentic-isolation/envoy clientAuth
issue client URI:spiffe://agentic-isolation/client clientAuth

# As `agentic-isolation token client` makes one.
token=ais_$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=')
echo "$token" > client.token
cat > service.toml <<TOML
# The configuration file of the replicas in compose.yaml: docs/operations.md.

[tls]
certificate = "/etc/agentic-isolation/tls/replica.pem"
key = "/etc/agentic-isolation/tls/replica.key"
client_ca = "/etc/agentic-isolation/tls/ca.pem"

# Envoy's certificate is not its callers': each shows a token, which Envoy passes on.
[cluster]
proxies = ["spiffe://agentic-isolation/envoy"]

[[token]]
name = "client"
sha256 = "$(printf %s "$token" | openssl dgst -sha256 -r | cut -d ' ' -f 1)"

# Read by Prometheus over the network of the composition, which nothing outside of it reaches.
[metrics]
address = "0.0.0.0:9464"
TOML

# The containers' user is another one, 10001, which may read what its group may. Of ca.key and client.* it needs nothing.
for name in one two envoy; do
  cp ca.pem $name
done
chmod 0644 ./*.pem ./*/*.pem service.toml
chmod 0755 . one two envoy
if [ "$(id -u)" = 0 ]; then
  chgrp 10001 ./*/*.key
  chmod 0640 ./*/*.key
  [ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID" client.key client.token
else
  echo "The containers run as 10001, which has to read the keys in one, two and envoy:" >&2
  echo "as root, chgrp 10001 and chmod 0640 them." >&2
fi
