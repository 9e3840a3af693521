#!/bin/sh
# Makes an authority and a certificate for Redis, in the folder that is named, unless they are there.
# Usage: certificates.sh FOLDER [HOST]
set -eu
folder=$1
host=${2:-redis}
days=365

cd "$folder"
if [ -s redis.pem ] && openssl x509 -in redis.pem -noout -checkend 2592000 >/dev/null; then
  exit 0 # valid for 30 more days
fi

umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "$days" \
  -keyout ca.key -out ca.pem -subj "/CN=event bus authority" \
  -addext "basicConstraints=critical,CA:true" -addext "keyUsage=critical,keyCertSign,cRLSign"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
  -keyout redis.key -out redis.csr -subj "/CN=$host"
printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\n' "$host" > names
openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -extfile names -out redis.pem
# The authority signs nothing else. Without its key no other server can pretend to be this Redis.
rm -f ca.key ca.srl redis.csr names
chmod 644 ca.pem redis.pem
# The user of the container with Redis.
chown "${OWNER:-999:1000}" redis.key
chmod 400 redis.key
