#!/bin/sh
# Starts Redis with TLS only, and with the users of an ACL file, whose passwords come from the environment.
# Usage: redis-secure.sh PROGRAM ACL_FILE CERTIFICATES PORT [OPTION…]
set -eu
program=$1 users=$2 certificates=$3 port=$4
shift 4

rules=$(cat "$users")
for role in EMITTER GATEWAY ADMIN METRICS BROKER; do
  name="REDIS_${role}_PASSWORD"
  eval "password=\${$name:?}"
  case $password in
    *[!A-Za-z0-9_-]*) echo "$name must have letters, digits, _ and - only" >&2; exit 2 ;;
  esac
  rules=$(printf '%s' "$rules" | sed "s/\${$name}/$password/")
done
umask 077
file=$(mktemp "${TMPDIR:-/tmp}/users.XXXXXX")
printf '%s\n' "$rules" > "$file"

exec "$program" --port 0 --tls-port "$port" --tls-cert-file "$certificates/redis.pem" \
  --tls-key-file "$certificates/redis.key" --tls-ca-cert-file "$certificates/ca.pem" --tls-auth-clients no \
  --aclfile "$file" --maxmemory "${REDIS_MAXMEMORY:-256mb}" --maxmemory-policy noeviction --save "" \
  --appendonly no --tcp-keepalive 60 "$@"
