# Podplane. `make` alone prints what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
python := .venv/bin/python
NODES ?= 3
# Lets a caller narrow a run: make test PYTEST="-k scheduler".
PYTEST ?=
RESUME ?=

.PHONY: help setup demo up down test test-deep test-vm check bench bench-services clean

help:  ## print this
	@echo 'Podplane: pods on plain Linux VMs. Root is needed for all but check.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@echo
	@echo 'First: make demo (under a minute once set up), then: make up NODES=3'

setup:  ## Debian packages, virtual environment, stubs; quick when run again
	@scripts/setup

demo: setup  ## three nodes, a manifest of the usual shape, its page through every NodePort; removes all it made
	@$(python) -m devcluster demo

up: setup  ## leave a cluster of NODES=3 nodes running and print how to talk to it
	@$(python) -m devcluster up --nodes $(NODES) $(if $(REGISTRIES_CONF),--registries-conf $(REGISTRIES_CONF))

down:  ## remove that cluster, whatever state it is in
	@if [[ -x $(python) ]]; then $(python) -m devcluster down; else echo 'nothing to remove: no cluster was made here'; fi

test: setup  ## every behaviour once, at most 15 minutes on 2 cores
	@scripts/setup-vm --optional
	@scripts/test $(PYTEST)

test-deep: setup  ## long sweeps, fuzzing and soaks
	@$(python) -m pytest -m deep --timeout 3600 $(PYTEST)

# RESUME=1: goes on where a run was cut, if no file has changed since. Two modules at a time, in the order of
# tests/vm/conftest.py.
test-vm: setup  ## real VMs under QEMU: IPVS, three nodes, cgroup v2, systemd, power cut; RESUME=1 goes on where it was cut
	@scripts/setup-vm
	@RESUME=$(RESUME) $(python) -m pytest -m vm -n 2 --dist loadfile --no-loadscope-reorder --timeout 900 $(PYTEST)

check: setup  ## ruff, mypy --strict, import rules, fresh stubs, buf where npm is there
	@scripts/check

bench: setup  ## every claim beside its peer: tables, plots, bench/results/*.json
	@.venv/bin/pip install --quiet --disable-pip-version-check -e '.[bench]'
	@$(python) -m bench $(NAMES)

bench-services: setup  ## service rules at size, our modes beside layout replicas of kube-proxy's; SIZES="1000x2 10000x2"
	@.venv/bin/pip install --quiet --disable-pip-version-check -e '.[bench]'
	@scripts/setup-vm --optional
	@SIZES="$(SIZES)" $(python) -m bench services

clean: down  ## the cluster, the virtual environment and the generated stubs
	@rm -rf .venv podplane/v1 .run .cache .clusters
