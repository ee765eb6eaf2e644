# make drill   the outage drill: boots a mail world, pulls plugs, counts every message (as root)
# make drills  all drills, one after the other: more than an hour (as root)
# make test    lint, types, unit, golden, lab, web: what every change has to pass (as root)
# make long    the tests that take too long for that (as root)
# make terraform  its modules: form, the providers' schema, plans by the real Terraform
# make cloud   what is asked of Oracle and Cloudflare, by their own libraries, answered here
# make scale   100,000 messages on a relay with 1 GB and an eighth of a core, measured (as root)
# make check   lint, types and unit tests, in seconds
# Each sets itself up: Debian packages and a virtual environment in .venv.

PYTHON ?= python3
BIN := .venv/bin
N ?= 500
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# A worker that had to be ended gets no successor: that one would begin with the same test.
FILES := --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# What the lab needs of Debian or Ubuntu, python3-venv for .venv itself, PHP for the tests of pfSense's
# kit, a browser and its letters for those of the dashboard, apprise for those of the notices, a
# shell and shellcheck for those of the primary's kit.
PACKAGES := apprise busybox chromium debian-archive-keyring fonts-dejavu-core iproute2 mmdebstrap \
    openssh-client php-cli php-xml python3-venv shellcheck systemd-container

.NOTPARALLEL:
.PHONY: drill drills test long terraform cloud scale check packages generated lock clean

drill: packages .venv/installed
	@trap '$(BIN)/backup-mx lab down --name drill' EXIT; trap 'exit 130' INT TERM; set -ex; \
	$(BIN)/backup-mx lab up --name drill; \
	$(BIN)/backup-mx lab drill outage --name drill --messages $(N) --report reports/outage

drills: packages .venv/installed
	@trap '$(BIN)/backup-mx lab down --name drill' EXIT; trap 'exit 130' INT TERM; set -ex; \
	$(BIN)/backup-mx lab up --name drill; \
	for drill in outage senders refusal flood retention maintenance standby flapping agent-killed \
	    migrate certificate first-boot; do \
	    $(BIN)/backup-mx lab drill $$drill --name drill; done; \
	$(BIN)/backup-mx lab drill outage --agent-dead --name drill --report reports/outage-agent-dead; \
	$(BIN)/backup-mx lab down --name drill; \
	$(BIN)/backup-mx lab up --name drill --tunnel --volume; \
	$(BIN)/backup-mx lab drill edge-reboot --name drill; \
	$(BIN)/backup-mx lab drill rebuild --name drill; \
	$(BIN)/backup-mx lab down --name drill; \
	$(BIN)/backup-mx lab up --name drill --bare; \
	$(BIN)/backup-mx lab drill go-live --name drill

# Three files at a time, long ones (test_drill…) early: a world of machines waits for most of its time.
test: packages check terraform cloud
	@# Every machine's systemd watches files, and two worlds come near the 128 that root may by default.
	@watches=/proc/sys/fs/inotify/max_user_instances; [ $$(cat $$watches) -ge 512 ] || echo 512 > $$watches || true
	@# exec: what ends make has to reach pytest, whose labs go with it; its shell would keep it back.
	exec $(BIN)/pytest -n 3 $(FILES) --timeout 900 -m "not long" tests/lab tests/web

long: packages .venv/installed
	exec $(BIN)/pytest --timeout 1800 -m long tests/unit tests/lab tests/web

terraform: .venv-terraform/installed
	.venv-terraform/bin/pytest -q tests/terraform

cloud: .venv-cloud/installed
	.venv-cloud/bin/pytest -q tests/cloud

scale: packages .venv/installed
	$(BIN)/python bench/scale.py

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 $(FILES) --timeout 120 --hypothesis-profile ci tests/unit tests/golden

# The example, the reference and the golden files follow the code; a test says when they do not.
generated: .venv/installed
	$(BIN)/python tests/golden/regenerate.py

# Versions and hashes of all that pip installs, without the place it comes from.
lock: .venv/installed
	$(BIN)/pip install --quiet uv
	$(LOCK) --extra dev pyproject.toml --output-file requirements.lock
	echo 'pytest>=9' | $(LOCK) --extra cloudflare --extra oci -c requirements.lock pyproject.toml - -o requirements-cloud.lock
	printf 'pytest>=9\npython-hcl2>=8\ntf>=1.2\n' | $(LOCK) - > requirements-terraform.lock
	printf 'pulumi-oci>=5.5\npulumi-cloudflare>=6.23\n' | $(LOCK) --no-deps - >> requirements-terraform.lock

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

# Apart from .venv: bindings of 250 MB that are only read, and an SDK of 300 MB (not compiled: minutes).
.venv-terraform/tools .venv-cloud/tools: .venv-%/tools: requirements-%.lock .venv/tools
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes \
	    -r requirements-$*.lock
	touch $@

.venv-terraform/installed .venv-cloud/installed: .venv-%/installed: .venv-%/tools .venv/installed
	rm -f .venv-$*/*.whl
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w .venv-$* .
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .venv-$*/*.whl
	touch $@

# The built wheel is what is tested, not the source tree.
.venv/installed: .venv/tools pyproject.toml README.md docs/operate.md $(shell find src -type f -not -name '*.pyc')
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	touch $@

clean:
	rm -rf .venv .venv-cloud .venv-terraform dist reports
