#!/usr/bin/env bash
# Certificates for encrypted traffic between the nodes of a cluster (docs/security.md):
#   cluster/make_certs.sh FOLDER ADDRESS [ADDRESS ...]
# One authority, and one certificate for all nodes, which names every address: 127.0.0.1 is always
# among them. Keep FOLDER/ca.key off the nodes.
set -euo pipefail
folder=${1:?usage: make_certs.sh FOLDER ADDRESS [ADDRESS ...]}
shift
umask 077
mkdir -p "$folder"
cd "$folder"
names="DNS:localhost,IP:127.0.0.1"
for address in "$@"; do names+=",IP:$address"; done
openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj "/CN=tats cluster authority" \
  -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey rsa:3072 -nodes -subj "/CN=tats node" -keyout node.key -out node.csr 2>/dev/null
openssl x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out node.crt \
  -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names") \
  2>/dev/null
rm node.csr
echo "export RAY_USE_TLS=1 RAY_TLS_SERVER_CERT=$PWD/node.crt RAY_TLS_SERVER_KEY=$PWD/node.key" \
  "RAY_TLS_CA_CERT=$PWD/ca.crt"
