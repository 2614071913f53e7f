#!/usr/bin/env bash
# The page in a headless Chromium against the demo: it moves, it calls, it is answered by a click, and silence looks like silence.
# Installs Debian's chromium where no browser is there (CHROMIUM names another one). Screenshots go to $TMPDIR.
# Usage: run.sh [PAGE]; VITALSQL names the binary, PAGE a page.html to try in place of the one that is built in.
set -euo pipefail
: "${VITALSQL:?set VITALSQL to the binary}"
binary=$(realpath "$VITALSQL")
page=${1:+$(realpath "$1")}
cd "$(dirname "$0")"
if ! python3 -c 'import chrome, sys; sys.exit(not chrome.find())'; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
exec timeout 180 python3 page.py "$binary" ${page:+"$page"}
