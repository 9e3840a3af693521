#!/bin/sh
# Builds the sdist and the wheel, checks their metadata, and uses the wheel in an empty environment. `make release-check`.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${1:-.venv/bin/python}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# First the sdist, then the wheel from the sdist: so the sdist is complete.
"$PYTHON" -m build --no-isolation --outdir "$scratch/dist" . >"$scratch/build.log" 2>&1 || { cat "$scratch/build.log"; exit 1; }
"$PYTHON" -m twine check --strict "$scratch"/dist/*
"$PYTHON" - "$scratch"/dist/*.whl <<'EOF'
import re, sys, zipfile
from email import message_from_bytes

with zipfile.ZipFile(sys.argv[1]) as wheel:
    names = wheel.namelist()
    metadata = message_from_bytes(wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))))
required = ["webui_adapter/client/dist/client.js", "eventbus/py.typed", "worker_adapter/py.typed", "webui_adapter/py.typed"]
problems = [f"the wheel lacks {name}" for name in required if name not in names]
if not any(name.endswith(".lua") for name in names):
    problems.append("the wheel lacks the Lua scripts")
if not any("/licenses/LICENSE" in name for name in names):
    problems.append("the wheel lacks the licence")
problems += [f"the wheel contains {name}" for name in names if re.match(r"(tests|demo|bench|docs)/|.*/client/(src|test)/", name)]
readme = re.sub(r"```.*?```", "", metadata.get_payload(decode=True).decode(), flags=re.DOTALL)
problems += [f"the description links {link}, which the package index does not have"
             for link in re.findall(r"\]\(((?!https?:|mailto:)[^)]+)\)|<img[^>]+src=\"(?!https?:)[^\"]*", readme)]
print("\n".join(problems) or f"{len(names)} files in the wheel")
sys.exit(bool(problems))
EOF

"$PYTHON" -m venv "$scratch/venv"
wheel=$(echo "$scratch"/dist/*.whl)
# The versions of requirements.txt without their hashes: pip accepts hashes only where every package has one.
sed -n 's/^\([A-Za-z0-9][^ ]*==[^ \\]*\)\( ;[^\\]*\)\{0,1\}.*/\1\2/p' requirements.txt >"$scratch/constraints.txt"
"$scratch/venv/bin/python" -m pip install --quiet --constraint "$scratch/constraints.txt" "$wheel[worker,gateway,django,sqlalchemy]"

# Not in the repository: its packages must not hide those of the wheel.
cd "$scratch"
./venv/bin/python -c '
import eventbus, eventbus.integrations.django, eventbus.integrations.sqlalchemy, eventbus.testing
import webui_adapter, webui_adapter.testing, webui_adapter.uvicorn, worker_adapter, worker_adapter.testing
assert "site-packages" in eventbus.__file__, eventbus.__file__
for package in (eventbus, webui_adapter, worker_adapter):
    assert all(hasattr(package, name) for name in package.__all__)
'
./venv/bin/eventbus --help >/dev/null
./venv/bin/python -m webui_adapter --help >/dev/null
./venv/bin/python -m pip check
echo "release-check: the packages are fit to publish"
