#!/bin/sh
# Install what the tests need beyond pip and npm: Chromium, HAProxy, RabbitMQ, and a second Redis for `make versions`.
# Name them where that is impossible.
set -eu

missing=""
have() { command -v "$1" >/dev/null 2>&1; }

have chromium || have chromium-browser || have google-chrome || [ -n "${CHROMIUM:-}" ] ||
  [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ] || missing="$missing chromium"
have haproxy || missing="$missing haproxy"
have rabbitmq-server || [ -x /usr/sbin/rabbitmq-server ] || missing="$missing rabbitmq-server"
have redis-server || missing="$missing redis-server"
have luacheck || missing="$missing lua-check"
have curl || missing="$missing curl"
[ -z "$missing" ] && exit 0

if have apt-get && [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  case "$missing" in *chromium*) missing="$missing fonts-liberation" ;; esac
  # Debian starts a service with its package; the tests start their own.
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
  # shellcheck disable=SC2086 # a list of packages
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
  rm -f /usr/sbin/policy-rc.d
elif have brew; then
  # shellcheck disable=SC2086
  for part in $missing; do
    case "$part" in
      chromium) brew install --cask --quiet google-chrome ;;
      lua-check) brew install --quiet luacheck ;;
      rabbitmq-server) brew install --quiet rabbitmq ;;
      redis-server) brew install --quiet redis ;;
      *) brew install --quiet "$part" ;;
    esac
  done
else
  echo "make: the tests need$missing; install with: sudo apt-get install$missing" >&2
  exit 1
fi
