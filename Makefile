# tunstack: building, running, testing. Everything is set up as it is needed; see scripts/setup.sh.

.DEFAULT_GOAL := help
.PHONY: help build run test check budget interop bench where packetdrill-plugin clean

BIN := .venv/bin
# Only an interface takes root: where we are not root, what makes one goes through sudo.
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)
ARGS ?=
# Sockets, interfaces and namespaces are made by these; as an ordinary user they are run on their own, through sudo.
ROOT_TESTS := tests/interop

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS='...' is handed on by run, test, interop, bench and where: make run ARGS='--http-root /srv'"

build: ## make .venv/ with tunstack in it (.venv/bin/tunstack)
	@scripts/setup.sh build

run: ## run the daemon on tunstack0; ^C ends it
	@scripts/setup.sh run
	@exec $(SUDO) $(BIN)/tunstack serve $(ARGS)

test: ## run all tests
	@scripts/setup.sh test
	@SUDO='$(SUDO)' ROOT_TESTS='$(ROOT_TESTS)' scripts/test.sh $(ARGS)

check: ## run the linters, the type checker, the import rules, the C compiler's warnings, and hold hot paths against their budget
	@scripts/setup.sh test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/unit/test_imports.py
	$(BIN)/python native/build.py --check
	$(BIN)/python scripts/bench/budget.py

budget: ## make what hot paths cost now their budget (scripts/bench/budget.toml)
	@scripts/setup.sh test
	$(BIN)/python scripts/bench/budget.py --write

interop: ## run the interop matrix against Linux, 1440 cells; ARGS='--only mtu=576,load=up' runs some
	@scripts/setup.sh test
	@$(SUDO) $(BIN)/python scripts/interop/matrix.py $(ARGS)

bench: ## measure beside the kernel's TCP, gVisor, lwIP and others: 10 minutes; ARGS=--quick one
	@scripts/setup.sh bench
	$(SUDO) $(BIN)/python scripts/bench/run.py $(ARGS)

where: ## show where the time goes, by layer; ARGS='--readme' puts the table into README.md
	@scripts/setup.sh test
	$(SUDO) $(BIN)/python scripts/bench/where.py $(ARGS)

packetdrill-plugin: ## make build/tunstack_packetdrill.so, with which packetdrill drives the engine
	@scripts/setup.sh build
	$(BIN)/python native/packetdrill/build.py $(ARGS)

clean: ## remove what was built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find tunstack -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
