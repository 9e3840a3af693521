# `make demo` and `make test` are all that a newcomer needs; each sets up what it lacks.
PYTHON ?= python3
# Three processes, each test file in one of them: the fixtures of a file are made once.
PYTEST ?= -n 3 --dist loadfile
VENV   := .venv
BIN    := $(VENV)/bin
CLIENT := webui_adapter/client
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup client system-parts demo test docs reference unit versions matrix chaos soak mutants fuzz audit autobahn browser lint format bench bench-full bench-curves bench-node bench-check wheel release-check requirements clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready $(CLIENT)/node_modules/.ready ## virtual environment and the client's tools

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed; name one with make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(CLIENT)/node_modules/.ready: $(CLIENT)/package-lock.json
	@command -v npm >/dev/null || { echo "make: Node 20 or newer with npm is needed to build the browser client" >&2; exit 1; }
	cd $(CLIENT) && npm ci --silent --no-audit --no-fund
	@touch $@

client: $(CLIENT)/dist/client.js ## build the browser client

$(CLIENT)/dist/client.js: $(CLIENT)/node_modules/.ready $(wildcard $(CLIENT)/src/*.ts $(CLIENT)/src/*/*.ts) $(CLIENT)/package.json
	cd $(CLIENT) && npm run --silent build
	@touch $@

system-parts: ## browser, load balancer and RabbitMQ for the tests, from the system's packages
	@sh tests/system-parts.sh

demo: setup client ## a small, real site: index documents and watch
	@exec $(BIN)/python -m demo $(ARGS)

test: setup client system-parts lint unit ## everything, the browser too

unit:
	cd $(CLIENT) && npm test --silent && npm run --silent size
	$(BIN)/python -m pytest $(PYTEST)

versions: setup client system-parts ## lowest and highest versions of the dependencies, oldest server and the system's
	$(BIN)/nox -s lowest highest "server(name='redis-6.2')" "server(name='redis-server')"

matrix: setup client system-parts ## each dependency by itself, lowest to newest; hours on two cores
	$(BIN)/nox -s lowest highest python worker gateway server addons

chaos: setup client ## the faults of tests/chaos, long, with their figures
	CHAOS_SCALE=$(or $(SCALE),10) $(BIN)/python -m pytest tests/chaos -q --timeout 900 $(ARGS)

soak: setup client ## 50,000 short tasks whose workers are killed at random, compared with the tasks' own ledger
	SOAK_TASKS=$(or $(TASKS),50000) $(BIN)/python -m pytest tests/soak -q -n 0 --timeout 7200 $(ARGS)

mutants: setup client ## change the pure modules and the Lua, see which changes no test notices; an hour or more
	nice -n 10 $(BIN)/python -m tests.mutants --per-file $(or $(PER_FILE),25) --seed $(or $(SEED),1) $(ARGS)

autobahn: setup client ## RFC 6455 by Autobahn's test suite, both ways of running; needs a Python 2.7 with pip
	$(BIN)/python -m tests.autobahn --python $(or $(PYTHON2),python2.7) $(ARGS)

fuzz: setup ## the parsers of what strangers send, an hour each; SECONDS=60 TARGETS=frames for less
	nice -n 10 $(BIN)/python -m tests.security.fuzz --seconds $(or $(SECONDS),3600) $(TARGETS)

# --strict: a package that could not be looked up is a failure, as is a service that does not answer.
audit: setup $(CLIENT)/node_modules/.ready ## published advisories about the pinned versions
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.txt
	cd $(CLIENT) && npm audit --audit-level low

lint: setup client ## ruff, strict types, import contracts, TypeScript's checks, generated files, prose, the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@command -v luacheck >/dev/null || sh tests/system-parts.sh
	luacheck -q eventbus/backends/redis/lua
	cd $(CLIENT) && npm run --silent check
	$(CLIENT)/node_modules/.bin/tsc -p demo/static
	$(BIN)/python -m eventbus schema demo.events --typescript -o demo/static/events.d.ts --check
	$(BIN)/python docs/_generators --check
	$(BIN)/python -m tests.docs.prose
	$(BIN)/python -m tests.docs.words
	$(BIN)/python -m tests.docs.docstrings
	$(BIN)/python -m tests.layout.bounds
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	node tests/layout/workflows.mjs
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*_*.yml
	sh tests/lint-files.sh

# Strict: a broken link, a missing anchor or a page outside the navigation is an error.
docs: setup ## the documentation site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

reference: setup ## write the generated pages: settings and metrics
	$(BIN)/python docs/_generators

format: setup ## rewrite to the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup client bench-node ## compare with other servers, in minutes
	$(BIN)/python -m bench $(ARGS)

bench-full: setup client bench-node ## the same with more rounds; then the curves, with more points
	$(BIN)/python -m bench --full $(ARGS)
	$(BIN)/python -m bench.curves --full
	$(BIN)/python -m bench.end_to_end

bench-curves: setup client ## how cost and latency grow, over connections, load, size, channels, gateways
	$(BIN)/python -m bench.curves $(ARGS)

# socket.io is a contender where Node is; without it the others are measured.
bench-node:
	@if command -v npm >/dev/null; then $(MAKE) --silent bench/node/node_modules/.ready; \
	  else echo "make: socket.io is left out of the benchmark: it needs Node 20 with npm" >&2; fi

bench/node/node_modules/.ready: bench/node/package-lock.json
	cd bench/node && npm ci --silent --no-audit --no-fund
	@touch $@

bench-check: setup ## compare the cost of the hot paths with the stored figures, half a minute
	@$(BIN)/python -m bench.check $(ARGS)

wheel: setup client ## dist/*.whl with the built client inside
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

release-check: setup client ## build sdist and wheel, check them, use the wheel in an empty environment
	sh tests/release-check.sh $(BIN)/python

requirements: ## pin the development environment anew (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links -q -o requirements.txt

clean:
	rm -rf $(VENV) dist build $(CLIENT)/node_modules $(CLIENT)/dist $(CLIENT)/out bench/node/node_modules .mypy_cache .nox .ruff_cache .pytest_cache .hypothesis
