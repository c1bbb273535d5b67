#!/usr/bin/env bash
# What compose.yaml needs for trying it out, of an authority that is thrown away:  deploy/trial.sh DIRECTORY
#
# ca.pem; replica (a server named agentic-isolation, and a client for its own health checks), edge (Envoy towards clients,
# localhost), envoy (Envoy towards replicas, a client) and client, each as .pem and .key, for 30 days; client.token; and
# service.toml, the replicas' configuration, which knows that token. In production let somebody issue certificates who also
# replaces them in time: cert-manager, Vault, step-ca, SPIRE.
set -euo pipefail
directory=${1:?where to put it}
mkdir -p "$directory"
cd "$directory"
umask 077

key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -days 30 -subj "/CN=agentic-isolation trial authority" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null

issue() {  # NAME, subjectAltName, extendedKeyUsage
  openssl req "${key[@]}" -keyout "$1.key" -subj "/CN=$1" 2>/dev/null |
    openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out "$1.pem" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$2" "$3") 2>/dev/null
}
issue replica DNS:agentic-isolation serverAuth,clientAuth
issue edge DNS:localhost,IP:127.0.0.1 serverAuth
issue envoy URI:spiffe://agentic-isolation/envoy clientAuth
issue client URI:spiffe://agentic-isolation/client clientAuth

# As `agentic-isolation token client` makes one.
token=ais_$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=')
echo "$token" > client.token
cat > service.toml <<TOML
# The configuration file of the replicas in compose.yaml: docs/operations.md.

[tls]
certificate = "/etc/agentic-isolation/replica.pem"
key = "/etc/agentic-isolation/replica.key"
client_ca = "/etc/agentic-isolation/ca.pem"

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
chmod 0644 ./*.pem service.toml
if [ "$(id -u)" = 0 ]; then
  chgrp 10001 replica.key edge.key envoy.key
  chmod 0640 replica.key edge.key envoy.key
  chmod 0755 .
  [ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID" client.key client.token
else
  echo "The containers run as 10001, which has to read the keys: as root, chgrp 10001 and chmod 0640 them." >&2
fi
