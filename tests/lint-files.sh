#!/bin/sh
# Facts about the repository's files that no linter knows: nothing of one machine, no registry's host, no stale output.
set -eu
cd "$(dirname "$0")/.."

if git grep -nIE 'registry\.npmjs|pypi\.org|files\.pythonhosted|"resolved": *"' -- . ':!tests/lint-files.sh'; then
  echo "lint: a registry's host is named above" >&2
  exit 1
fi
if git grep -nIE '/root/|/home/[a-z]+/|/tmp/[a-z]' -- . ':!tests/lint-files.sh' ':!*.md' ':!compose/*'; then
  echo "lint: a path of one machine is named above" >&2
  exit 1
fi
