# Everything here sets up what it needs by itself, and is quick when that is already there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
# sudo resets the environment: the lab starts `seaway` by name, and our own settings have effect.
ROOT_ENV := $(AS_ROOT) env PATH="$(CURDIR)/$(BIN):$$PATH" \
	$(foreach name,$(filter SEAWAY_% HYPOTHESIS_%,$(.VARIABLES)),$(name)="$$$(name)")
# What root wrote into someone's checkout (caches, results) goes back to them.
HAND_BACK = trap '[ "$$(stat -c %u Makefile)" = 0 ] || $(AS_ROOT) find . -path ./.git -prune -o \
	-user root -exec chown -h --reference=Makefile {} +' EXIT

.PHONY: help setup python neighbours check test unit netns e2e demo bench images wheel golden docs clean test-vm

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: packages, Python environment, images
	@packaging/setup.sh

python:
	@packaging/setup.sh python

neighbours:
	@packaging/setup.sh neighbours

check: python ## formatting, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup neighbours ## all tests, as root, in under ten minutes; ARGS="-k name -x" narrows them down
	@$(HAND_BACK); $(ROOT_ENV) $(BIN)/python -m pytest $(ARGS)

unit: python ## the tests that need neither root nor Podman
	@$(BIN)/python -m pytest tests/unit tests/property tests/golden $(ARGS)

netns: python ## the tests against this kernel, in namespaces of their own
	@$(HAND_BACK); $(ROOT_ENV) $(BIN)/python -m pytest tests/netns $(ARGS)

e2e: setup neighbours ## the tests with real containers
	@$(HAND_BACK); $(ROOT_ENV) $(BIN)/python -m pytest tests/e2e $(ARGS)

test-vm: python ## boot Debian's own kernel under QEMU and run the tests that need it there; minutes
	@$(if $(AS_ROOT),,$(HAND_BACK);) packaging/vm.sh $(ARGS)

demo: setup ## see it work: nginx, redis and busybox containers in a lab
	@$(HAND_BACK); $(ROOT_ENV) packaging/demo.sh $(ARGS)

bench: setup ## measure against the peers that are installed; needs a quiet machine
	@$(HAND_BACK); $(ROOT_ENV) $(BIN)/python -m bench $(ARGS)

images: ## only the busybox, nginx and redis images
	@packaging/setup.sh images

wheel: python ## build dist/seaway-*.whl
	@rm -rf dist
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

golden: python ## write the expected texts of tests/golden anew; read the diff before committing it
	@SEAWAY_GOLDEN=write $(BIN)/python -m pytest tests/golden $(ARGS)

docs: python ## write the parts of docs/reference that are made from the code
	@$(BIN)/python docs/generate.py

clean: ## remove what was built here; packages and images of the machine stay
	rm -rf .venv .vm dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +
