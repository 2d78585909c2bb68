# The whole workflow; CI calls the same targets. Needs Python 3.11 or newer, pip and make.
PYTHON ?= python3
UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
UV := .bootstrap/bin/uv
JOBS ?= 2
BUILDER ?= docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# As pip does: trust what this machine trusts.
export UV_SYSTEM_CERTS := 1
# Where it is set, each of the tests' many processes compiles all that it imports: seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help setup setup-dev run test test-nightly test-one check check-static check-deploy format migrate migration seed bench demo docs docs-site image secrets audit sbom lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.run  ## install what running needs into .venv, and .venv/bin/picopay

setup-dev: $(VENV)/.dev

run: setup  ## start the API with its own PostgreSQL and Valkey (ARGS="--port 8001")
	@exec $(BIN)/picopay serve $(ARGS)

test: setup-dev  ## run every test but the nightly ones (ARGS="-k replay")
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(ARGS)

test-nightly: setup-dev  ## the long tests: every kill at every point, and minutes of random ones
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder -m "nightly or kill" $(ARGS)

test-one: setup-dev  ## run one test: make test-one T=tests/unit/kernel
	$(BIN)/python -m pytest $(T)

check: check-static  ## the static checks, and the unit, tidy and deployment tests
	$(BIN)/python -m pytest -q -n $(JOBS) tests/unit tests/tidy tests/deploy

# A patch is part of a resource, and a kustomization none: what is left is whole.
MANIFESTS = $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/base/*.yaml deploy/kubernetes/overlays/*/*.yaml))

check-static: setup-dev check-deploy  ## format, lint, types, import contracts, deployment files, alerts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_alerts.py

check-deploy: setup-dev  ## the Dockerfile, the compose files and the manifests, by their schemas
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.prod.yml docker-compose.backup.yml
	$(BIN)/kubernetes-validate --strict --quiet $(MANIFESTS)

format: setup-dev  ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

migrate: setup  ## bring the database schema up to date
	$(BIN)/picopay migrate

migration: setup-dev  ## draft a migration from the models: make migration M="what it does"
	$(BIN)/python scripts/draft_migration.py "$(M)"

seed: setup  ## user 1 with exactly 1000.00 USD, and a shop of five products
	$(BIN)/python scripts/setup_test_user.py
	$(BIN)/python scripts/seed_data.py

docs: setup-dev  ## write reference pages and dashboards from the code, then the site of all pages
	$(BIN)/python scripts/write_reference.py
	$(BIN)/python scripts/write_dashboards.py
	@$(MAKE) --no-print-directory docs-site

docs-site: setup-dev  ## the site alone, in build/site; a broken link fails
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/site
	@echo build/site/docs/index.html

demo: setup  ## tell the story of exactly-once on the running server
	$(BIN)/picopay demo

bench: setup-dev  ## compare with the textbook implementation (needs wrk)
	$(BIN)/python benchmarks/run.py $(ARGS)

image:  ## build the image, picopay:<version> (BUILDER=podman; ARGS="--build-arg EMBEDDED=1")
	$(BUILDER) build --tag picopay:$(VERSION) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) $(ARGS) .

secrets:  ## draw the secrets of docker-compose.prod.yml into deploy/secrets
	@$(PYTHON) scripts/make_secrets.py

audit: setup-dev  ## known vulnerabilities, and secrets in files (AUDIT_STRICT=1: unasked is failed)
	$(BIN)/python scripts/audit.py vulnerabilities secrets

sbom: setup-dev  ## a CycloneDX bill of materials of what runs, in dist/
	$(BIN)/python scripts/audit.py sbom

lock: $(UV)  ## resolve the dependencies anew and write locks/
	$(UV) lock --upgrade --quiet
	$(UV) export --quiet --frozen --no-emit-project --no-header --no-dev --extra embedded --extra tracing --group build -o locks/run.txt
	$(UV) export --quiet --frozen --no-emit-project --no-header --all-groups --extra embedded --extra tracing -o locks/dev.txt
	$(UV) export --quiet --frozen --no-emit-project --no-header --no-dev --extra tracing -o locks/image.txt
	$(UV) export --quiet --frozen --no-emit-project --no-header --only-group build -o locks/build.txt
	@! grep -nE '^ *(--(extra-)?index-url|--find-links)|https?://' locks/*.txt

clean:  ## remove environments and caches; data in .picopay stays
	rm -rf $(VENV) .bootstrap .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build

# pip brings uv, into a folder of its own; uv makes the environment even where Python came
# without ensurepip.
$(UV): locks/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PicoPay needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@rm -rf .bootstrap
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --require-hashes --target .bootstrap -r locks/uv.txt
	@touch $(UV)

$(VENV)/.made: $(UV)
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.run: locks/run.txt pyproject.toml $(VENV)/.made
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/run.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: locks/dev.txt $(VENV)/.run
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/dev.txt
	@touch $@
