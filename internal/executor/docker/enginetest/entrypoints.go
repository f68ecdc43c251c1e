package enginetest

// engineEntrypoint behaves as the one of the well-known docker-in-docker image: it listens on 2375 without TLS when
// DOCKER_TLS_CERTDIR is empty, else makes certificates there, once, and listens on 2376.
const engineEntrypoint = `#!/bin/sh
set -e
case "${1:-}" in ''|-*) set -- dockerd "$@" ;; esac
[ "$1" = dockerd ] || exec "$@"
shift
rm -f /var/run/docker.pid
mkdir -p /run /tmp
if [ -z "$DOCKER_TLS_CERTDIR" ]; then
  exec dockerd --host=unix:///var/run/docker.sock --host=tcp://0.0.0.0:2375 --tls=false "$@"
fi
d=$DOCKER_TLS_CERTDIR
mkdir -p "$d/ca" "$d/server" "$d/client"
pair() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1/key.pem" -subj "/CN=$2" -out /tmp/csr -config /tmp/ssl.cnf 2>/dev/null
  printf '%s\n' "$3" >/tmp/ext
  openssl x509 -req -in /tmp/csr -CA "$d/ca/cert.pem" -CAkey "$d/ca/key.pem" -CAcreateserial -days 30 -extfile /tmp/ext -out "$1/cert.pem" 2>/dev/null
  cp "$d/ca/cert.pem" "$1/ca.pem"
  chmod 644 "$1/key.pem"
}
printf '[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n' >/tmp/ssl.cnf
if [ ! -s "$d/server/cert.pem" ] || [ ! -s "$d/client/cert.pem" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$d/ca/key.pem" -subj '/CN=test CA' -days 30 \
    -out "$d/ca/cert.pem" -config /tmp/ssl.cnf 2>/dev/null
  names="DNS:docker,DNS:localhost,DNS:$(hostname),IP:127.0.0.1"
  for ip in $(hostname -i); do names="$names,IP:$ip"; done
  pair "$d/server" server "subjectAltName=$names${DOCKER_TLS_SAN:+,$DOCKER_TLS_SAN}"
  pair "$d/client" client 'extendedKeyUsage=clientAuth'
fi
exec dockerd --host=unix:///var/run/docker.sock --host=tcp://0.0.0.0:2376 --tlsverify \
  --tlscacert="$d/server/ca.pem" --tlscert="$d/server/cert.pem" --tlskey="$d/server/key.pem" "$@"
`

// registryEntrypoint behaves as the one of the well-known registry image: a configuration file, or another command.
const registryEntrypoint = `#!/bin/sh
set -e
case "${1:-}" in
  *.yaml|*.yml) set -- docker-registry serve "$@" ;;
  serve|garbage-collect|help|-*) set -- docker-registry "$@" ;;
esac
exec "$@"
`

const registryConfig = `version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
http: {addr: ":5000"}
`
