# make drill   the outage drill: boots a mail world, pulls plugs, counts every message (as root)
# make drills  all drills, one after the other: ten minutes (as root)
# make test    everything: lint, types, unit, golden, lab (as root)
# make check   lint, types and unit tests, in seconds
# Each sets itself up: Debian packages and a virtual environment in .venv.

PYTHON ?= python3
BIN := .venv/bin
N ?= 500

# What the lab needs of Debian or Ubuntu, python3-venv for .venv itself, PHP for the tests of pfSense's kit.
PACKAGES := debian-archive-keyring iproute2 mmdebstrap openssh-client php-cli php-xml python3-venv \
    systemd-container

.NOTPARALLEL:
.PHONY: drill drills test check packages generated lock clean

drill: packages .venv/installed
	@trap '$(BIN)/backup-mx lab down --name drill' EXIT; trap 'exit 130' INT TERM; set -ex; \
	$(BIN)/backup-mx lab up --name drill; \
	$(BIN)/backup-mx lab drill outage --name drill --messages $(N) --report reports/outage

drills: packages .venv/installed
	@trap '$(BIN)/backup-mx lab down --name drill' EXIT; trap 'exit 130' INT TERM; set -ex; \
	$(BIN)/backup-mx lab up --name drill; \
	for drill in outage senders refusal flood; do $(BIN)/backup-mx lab drill $$drill --name drill; done; \
	$(BIN)/backup-mx lab down --name drill; \
	$(BIN)/backup-mx lab up --name drill --tunnel; \
	$(BIN)/backup-mx lab drill edge-reboot --name drill

test: packages check
	$(BIN)/pytest tests/lab

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit tests/golden

# The example, the reference and the golden files follow the code; a test says when they do not.
generated: .venv/installed
	$(BIN)/python tests/golden/regenerate.py

# Versions and hashes of all that pip installs, without the place it comes from.
lock: .venv/installed
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --extra dev pyproject.toml --output-file requirements.lock

packages:
	@missing=$$(for name in $(PACKAGES); do \
	    dpkg-query -W -f '$${db:Status-Status}' $$name 2>/dev/null | grep -qx installed || echo $$name; done); \
	if [ -n "$$missing" ]; then \
	    [ $$(id -u) = 0 ] || { echo "Root is needed, to install" $$missing >&2; exit 1; }; \
	    echo "Installing" $$missing; \
	    apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $$missing; fi

.venv/tools: requirements.lock
	rm -rf .venv
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) packages
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

# The built wheel is what is tested, not the source tree.
.venv/installed: .venv/tools pyproject.toml README.md $(shell find src -type f -not -name '*.pyc')
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	touch $@

clean:
	rm -rf .venv dist build reports
