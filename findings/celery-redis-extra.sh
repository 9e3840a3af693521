#!/bin/sh
# celery[redis]==5.4.0 installs without a conflict and makes an environment in which no worker can use Redis.
#
# Versions: celery 5.4.0, kombu 5.7.0, redis-py 5.3.1, Python 3.11.
#
# Celery 5.4's extra "redis" asks for redis-py below 6. It does not ask for kombu's extra. Celery itself allows kombu
# below 6. So the newest kombu 5.7 is installed next to redis-py 5.3, and its transport refuses that when a connection
# is made. The resolver cannot see it: only kombu[redis] names the bound. Ask for kombu[redis] next to celery[redis].
#
# packaging is installed because kombu's Redis transport imports it, which only kombu[redis] names, too.
#
# Exits with 1 if the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check "celery[redis]==5.4.0" "kombu==5.7.0" packaging
"$folder/env/bin/pip" check
"$folder/env/bin/python" - <<'PYTHON'
import celery
import kombu
import redis

print(f"celery {celery.__version__}, kombu {kombu.__version__}, redis-py {redis.__version__}")
try:
    # The check comes before the first byte is sent: no server is needed.
    kombu.Connection("redis://127.0.0.1:6379/0").channel()
except kombu.exceptions.VersionMismatch as error:
    print(f"as described: {error}")
except Exception as error:
    raise SystemExit(f"changed: {type(error).__name__}: {error}") from None
else:
    raise SystemExit("changed: the connection was accepted")
PYTHON
# Seen: celery 5.4.0, kombu 5.7.0, redis-py 5.3.1
#       as described: Redis transport requires redis-py versions 6.1.0 or later. You have 5.3.1
