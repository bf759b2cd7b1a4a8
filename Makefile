# sessiondb: everything that one does with a checkout. `make` alone lists the targets.
#
# Needs Python >= 3.11 (with venv), git and make. Each target sets up the environment in .venv by itself:
# the plain package for `demo`, the `gateway` extra for `gateway`, the `dev` extra for the rest, again whenever pyproject.toml changes.

VENV  := .venv
BIN   := $(VENV)/bin
# Options for pytest, e.g. `make test ARGS="-k compaction"`.
ARGS  ?=
# LOCKED=1 installs the exact versions of requirements-dev.lock instead of the ranges in pyproject.toml.
LOCKED ?=
# Test files run beside one another; many of their tests wait for a process most of the time. WORKERS=0: one after the other.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 2)
# A file's tests stay together. The order is that of tests/conftest.py: xdist would begin the files with few tests last, and these take longest.
BESIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Tests and benchmarks must see the package of this checkout, and nobody's settings.
unexport PYTHONPATH PYTHONHOME PYTHONUNBUFFERED PYTEST_ADDOPTS VIRTUAL_ENV
# The tests start hundreds of processes. Without bytecode on disk each compiles every module again, and takes half as long again to start.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two targets at once would set up one environment twice.
.NOTPARALLEL:
.PHONY: help demo gateway adapters test loops test-fast shuffle covered coverage kills server-kills openapi drains drill crash fuzz models prompts oracle openclaw openclaw-plugin soak on-call audit check lint format \
  prose statements node-types types mutants measure docs bench bench-smoke wheel lock clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.run ## import real transcripts, compact under load, kill -9, recover, report (under a minute)
	@$(BIN)/python -m examples.demo $(ARGS)

gateway: $(VENV)/.gateway ## run the reference gateway: a web chat with a scripted model (ARGS="--port 9000 --help")
	@$(BIN)/python -m examples.gateway $(or $(DB),gateway.db) $(ARGS)

test: $(VENV)/.dev ## run every test, under asyncio and trio
	@echo "test: pytest, in $(WORKERS) processes"
	@$(BIN)/python -m pytest -q $(BESIDE) $(ARGS)

loops: $(VENV)/.dev ## run under trio, too, what `make test` runs on one loop only
	@echo "loops: pytest, in $(WORKERS) processes"
	@SESSIONDB_LOOPS=all $(BIN)/python -m pytest -q $(BESIDE) -m one_loop $(ARGS)

test-fast: $(VENV)/.dev ## run the tests that take no more than a few seconds each
	@echo "test: pytest, without the slow ones"
	@$(BIN)/python -m pytest -q $(BESIDE) -m "not slow" $(ARGS)

# Each file in a process of its own, because what another file imported or left behind may be what a test lives on.
shuffle: $(VENV)/.dev $(VENV)/.shuffle ## run each test file alone, its tests in a random order (half an hour; FILES=, SEED=)
	@failed=; for file in $(or $(FILES),$$(find tests -name 'test_*.py' | sort)); do \
	  $(BIN)/python -m pytest -q -p randomly $(if $(SEED),--randomly-seed=$(SEED)) $(ARGS) $$file || [ $$? = 5 ] || failed="$$failed $$file"; \
	done; test -z "$$failed" || { echo "shuffle: these failed:$$failed"; exit 1; }

# Lines that only a slow test or a killed process reaches count as missed. `ARGS=tests/x` measures what some tests reach.
# Python 3.12 counts lines at no cost (sys.monitoring). On 3.11 the tests would take half as long again.
covered: $(VENV)/.dev
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
	  echo "test: pytest, in $(WORKERS) processes, with coverage"; \
	  export COVERAGE_CORE=sysmon; $(BIN)/python -m coverage erase; \
	  $(BIN)/python -m coverage run -m pytest -q $(BESIDE) $(ARGS) && \
	  $(BIN)/python -m coverage combine --quiet && \
	  echo "coverage: $$($(BIN)/python -m coverage report --format=total --precision=1) % of lines"; \
	else \
	  $(MAKE) --no-print-directory test && \
	  echo "coverage: not measured on Python 3.11, where it costs half as much again; \`make coverage\` does"; \
	fi

coverage: $(VENV)/.dev ## run the fast tests; print which share of the lines of sessiondb/ they reach
	@echo "coverage: pytest, without the slow ones"
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest -q $(BESIDE) -m "not slow" $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@echo "coverage: $$($(BIN)/python -m coverage report --format=total --precision=1) % of lines ($(BIN)/coverage report -m lists the rest)"

kills: $(VENV)/.dev ## kill -9 a gateway under load 200 times; every promise must hold (some minutes; KILLS=, SEED=)
	@echo "kills: $(or $(KILLS),200) of them"
	@SESSIONDB_KILLS=$(or $(KILLS),200) $(if $(SEED),SESSIONDB_KILLS_SEED=$(SEED)) $(BIN)/python -m pytest -q -s tests/proofs/crash/test_gateway_kills.py $(ARGS)

server-kills: $(VENV)/.dev ## kill -9 `sessiondb serve` under load 200 times: nothing lost or doubled (minutes; KILLS=, SEED=)
	@echo "server-kills: $(or $(KILLS),200) of them"
	@SESSIONDB_SERVER_KILLS=$(or $(KILLS),200) $(if $(SEED),SESSIONDB_SERVER_KILLS_SEED=$(SEED)) $(BIN)/python -m pytest -q -s tests/proofs/crash/test_server_kills.py $(ARGS)

# schemathesis wants other versions of our packages, so it has an environment of its own.
openapi: $(VENV)/.dev $(VENV)/.openapi/.installed ## ask `sessiondb serve` all that its OpenAPI document allows, and more (minutes; OPENAPI_SECONDS=, SEED=)
	@$(BIN)/python -m tests.proofs.openapi --program $(VENV)/.openapi/bin/schemathesis --seconds $(or $(OPENAPI_SECONDS),300) --seed $(or $(SEED),1) $(ARGS)

drains: $(VENV)/.dev ## stop one of two gateways under load 100 times: no turn interrupted, none paid for twice (minutes; DRAINS=, SEED=)
	@echo "drains: $(or $(DRAINS),100) of them"
	@SESSIONDB_DRAINS=$(or $(DRAINS),100) $(if $(SEED),SESSIONDB_DRAINS_SEED=$(SEED)) $(BIN)/python -m pytest -q -s tests/proofs/crash/test_drains.py $(ARGS)

drill: $(VENV)/.dev ## kill -9 a gateway under load 200 times and part its files after each (some minutes; DRILLS=, SEED=)
	@echo "drill: $(or $(DRILLS),200) of them"
	@SESSIONDB_DRILLS=$(or $(DRILLS),200) $(if $(SEED),SESSIONDB_DRILLS_SEED=$(SEED)) $(BIN)/python -m pytest -q -s tests/proofs/crash/test_restore_drill.py $(ARGS)

# The long versions of the proofs in docs/reliability.md. Each prints its seed; SEED=... repeats a course.
crash: $(VENV)/.dev ## power cuts, disk faults, kills, storms, damage: the long versions (hours; CUTS=, FAULTS=, CRASHES=, STORM=, DAMAGE=, SEED=)
	@echo "crash: power cuts"
	@SESSIONDB_POWER_CUTS=$(or $(CUTS),20000) $(if $(SEED),SESSIONDB_POWER_SEED=$(SEED)) $(BIN)/python -m pytest -q -s tests/proofs/power/test_power_loss.py $(ARGS)
	@echo "crash: disk faults"
	@SESSIONDB_FAULTS=$(or $(FAULTS),40) $(if $(SEED),SESSIONDB_FAULTS_SEED=$(SEED)) $(BIN)/python -m pytest -q -s tests/proofs/crash/test_faults.py $(ARGS)
	@echo "crash: kills"
	@SESSIONDB_CRASHES=$(or $(CRASHES),2000) $(if $(SEED),SESSIONDB_CRASHES_SEED=$(SEED)) $(BIN)/python -m pytest -q -s \
	  tests/proofs/crash/test_steps.py tests/proofs/crash/test_stops.py tests/proofs/crash/test_clocks.py tests/proofs/crash/test_findings.py $(ARGS)
	@echo "crash: eight writers and eight readers"
	@SESSIONDB_STORM=$(or $(STORM),12000) $(if $(SEED),SESSIONDB_STORM_SEED=$(SEED)) $(BIN)/python -m pytest -q -s tests/proofs/crash/test_process_storm.py $(ARGS)
	@echo "crash: damaged files"
	@SESSIONDB_DAMAGE=$(or $(DAMAGE),2000) $(if $(SEED),SESSIONDB_DAMAGE_SEED=$(SEED)) $(BIN)/python -m pytest -q -s \
	  tests/salvage tests/sqlite/test_damaged_file.py tests/sqlite/test_damaged_wal.py \
	  tests/cli/test_damaged_databases.py $(ARGS)

fuzz: $(VENV)/.dev $(if $(filter no,$(COVERAGE)),,$(VENV)/.fuzz) ## bad input for importer, API, command line, `query` and stored values (many minutes; FUZZ=inputs, SEED=, COVERAGE=no)
	@echo "fuzz: $(or $(FUZZ),20000) inputs$(if $(filter no,$(COVERAGE)),; NOT guided by coverage (COVERAGE=no))"
	@SESSIONDB_FUZZ=$(or $(FUZZ),20000) SESSIONDB_FUZZ_COVERAGE=$(COVERAGE) $(if $(SEED),SESSIONDB_FUZZ_SEED=$(SEED)) $(BIN)/python -m pytest -q -s \
	  tests/proofs/fuzz $(ARGS)
	@SESSIONDB_ATTACKS=$(or $(FUZZ),20000) SESSIONDB_REDACTION_EXAMPLES=3000 $(if $(SEED),SESSIONDB_ATTACKS_SEED=$(SEED)) \
	  $(BIN)/python -m pytest -q -s tests/security tests/transfer/test_redaction.py tests/transfer/test_redaction_rules.py $(ARGS)

models: $(VENV)/.dev ## thousands of long courses beside the models; each broken rule is noticed (an hour; ARGS="-k gateway")
	@echo "models: 1,500 courses of a transcript, 1,000 of a gateway, on each event loop"
	@SESSIONDB_HYPOTHESIS=long $(BIN)/python -m pytest -q $(BESIDE) tests/proofs/models $(ARGS)

# A strict checker of each provider's rules reads every context. `make test` does it a little.
prompts: $(VENV)/.dev ## ask whether providers would take the contexts of 2,000 conversations of each format (minutes)
	@SESSIONDB_TALKS=$(or $(TALKS),2000) $(BIN)/python -m pytest -q -s tests/transcript/test_prompts.py tests/transcript/formats/test_cuts.py $(ARGS)

# The readers are programs of others, in packages of several hundred megabytes. SESSIONDB_ORACLE names node_modules that have them.
oracle: $(VENV)/.dev $(if $(SESSIONDB_ORACLE),,$(VENV)/.oracle/.installed) ## compare imports with the real readers of pi and OpenClaw, over 2,000 transcripts (minutes; ORACLE=, SEED=; needs node)
	@$(BIN)/python -m tests.proofs.oracle --count $(or $(ORACLE),2000) $(if $(SEED),--seed $(SEED)) $(ARGS)

# Real gateways on loopback, with a scripted model. SESSIONDB_OPENCLAW names a folder that has the programs.
openclaw: $(VENV)/.dev $(if $(SESSIONDB_OPENCLAW),,$(VENV)/.openclaw/.installed) ## move homes of real OpenClaw gateways that answer meanwhile, and back (minutes; ARGS=2026.9.6; needs npm)
	@$(BIN)/python -m tests.proofs.openclaw $(ARGS)

openclaw-plugin: $(VENV)/.dev $(if $(SESSIONDB_OPENCLAW),,$(VENV)/.openclaw/.installed) ## the plugin in a real OpenClaw, beside its own engine (minutes; needs npm and node)
	@$(BIN)/python -m tests.proofs.openclaw.engine $(ARGS)

# Each framework in an environment of its own, in .venv/.adapters, which distclean removes with the rest.
adapters: $(VENV)/.dev ## run the frameworks' own tests against sessiondb/adapters (many minutes; ONLY=openai-agents, ARGS=--bench; needs a network)
	@$(BIN)/python -m tests.proofs.adapters $(ONLY) $(ARGS)

on-call: $(VENV)/.dev ## run each command of docs/how-to/on-call.md on a database of 1,000,000 entries (minutes; ENTRIES=)
	@echo "on-call: $(or $(ENTRIES),1000000) entries"
	@SESSIONDB_ON_CALL=$(or $(ENTRIES),1000000) $(BIN)/python -m pytest -q tests/cli/test_on_call.py $(ARGS)

soak: $(VENV)/.dev ## everything at once for 20 minutes, with bounds on what may grow (SOAK_MINUTES=, SEED=; ARGS="--help")
	@echo "soak: $(or $(SOAK_MINUTES),20) minutes"
	@SOAK_TEETH=1 $(BIN)/python -m pytest -q tests/proofs/soak/test_soak.py
	@$(BIN)/python -m tests.proofs.soak --minutes $(or $(SOAK_MINUTES),20) $(if $(SEED),--seed $(SEED)) $(ARGS)

audit: $(VENV)/.run ## ask an advisory service about everything that sessiondb needs to run (needs a network)
	@echo "audit: pip-audit, in an environment of its own"
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(BIN)/python tests/support/closure.py >"$$folder/closure.txt" && \
	  $(BIN)/python -m venv "$$folder/venv" && "$$folder/venv/bin/python" -m pip install --quiet pip-audit && \
	  "$$folder/venv/bin/pip-audit" --strict --no-deps --disable-pip --progress-spinner off --requirement "$$folder/closure.txt" || \
	  { echo "audit: NOT CLEAN, or no advisory service answered (above). Nothing is known about what it could not look up."; exit 1; }
	@echo "audit: no known advisory"

check: lint types docs covered bench-smoke ## all that CI runs: lint, types, docs, every test, bench-smoke
	@echo "check: all good"

lint: $(VENV)/.dev ## look for defects, style and layout (ruff), and at the prose
	@echo "lint: ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "lint: run \`make format\`"; exit 1; }
	@echo "lint: prose"
	@$(BIN)/python tools/prose.py

format: $(VENV)/.dev ## lay the code out, sort imports, apply ruff's safe fixes
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

prose: $(VENV)/.dev ## check sentences, semicolons and columns of docs, docstrings and comments (ARGS=--count)
	@echo "prose: tools/prose.py"
	@$(BIN)/python tools/prose.py $(ARGS)

statements: $(VENV)/.dev ## write sessiondb/statements.pyi anew: after a change of a statement or of schema.sql
	@$(BIN)/python tools/typed_rows.py $(ARGS)

node-types: $(VENV)/.dev ## write the types of the Node client's records anew: after a change of the server's routes
	@$(BIN)/python -m tools.node_types

types: $(VENV)/.dev ## check the types of sessiondb/ (mypy --strict)
	@echo "types: mypy"
	@$(BIN)/python -m mypy --no-error-summary

docs: $(VENV)/.docs ## build the site of docs/ into build/site; a warning is an error (a few seconds)
	@echo "docs: mkdocs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

measure: $(VENV)/.dev ## print figures about the code: files, imports, lines, prose, start-up (ARGS="BEFORE AFTER --decodes")
	@$(BIN)/python tools/measure.py $(ARGS)

mutants: $(VENV)/.dev ## change rules and statements one at a time; print what no test notices (hours; ONLY=inbox, MUTANTS=200, SEED=7)
	@$(BIN)/python -m tools.mutants $(foreach one,$(ONLY),--only $(one)) $(if $(MUTANTS),--sample $(MUTANTS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(VENV)/.dev ## measure, each beside its raw SQLite floor (minutes; wants a quiet machine)
	@$(BIN)/python -m pytest -q benchmarks --benchmark-only --benchmark-columns=min,median,max,rounds $(ARGS)

# One round of everything at small sizes: proves that the benchmarks still run, measures nothing.
bench-smoke: $(VENV)/.dev ## run every benchmark for one small round
	@echo "bench-smoke: one round each"
	@SESSIONDB_BENCH=smoke $(BIN)/python -m pytest -q benchmarks --benchmark-disable $(ARGS)

wheel: $(VENV)/.dev ## build the sdist and the wheel into dist/
	@$(BIN)/python -m hatchling build --clean

# uv, because it resolves for every Python and platform at once, with hashes, and writes no index's address.
# editables is what hatchling needs for an editable installation; pip would fetch it unlocked.
lock: $(VENV)/pyvenv.cfg ## renew requirements-dev.lock: the newest versions that pyproject.toml allows (needs a network)
	@echo "lock: uv, in an environment of its own"
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(BIN)/python -m venv "$$folder/venv" && \
	  "$$folder/venv/bin/python" -m pip install --quiet uv && \
	  { sed -n '/^#/!q;p' requirements-dev.lock; \
	    echo editables | "$$folder/venv/bin/uv" --quiet pip compile pyproject.toml - --extra dev --python-version 3.11 --universal \
	      --generate-hashes --no-header; } >"$$folder/lock" && mv "$$folder/lock" requirements-dev.lock
	@echo "lock: $$(grep -c == requirements-dev.lock) packages in requirements-dev.lock"

clean: ## remove caches and what was built
	@rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage .coverage.*
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print | xargs rm -rf

distclean: clean ## clean, and remove the environment
	@rm -rf $(VENV)

# The environment. PYTHON=... picks the interpreter; otherwise the first of these that is new enough.
PYTHON ?=
PYTHONS = $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

# pyvenv.cfg stands for the environment: it is written when one is made, so a new one is filled again.
$(VENV)/pyvenv.cfg:
	@for p in $(PYTHONS); do \
	  if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$p; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "setup: sessiondb needs Python 3.11 or newer; tried: $(PYTHONS)."; \
	  echo "       Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; \
	fi; \
	echo "setup: environment in $(VENV) ($$("$$found" --version))"; \
	if ! "$$found" -m venv $(VENV) >$(VENV).log 2>&1; then \
	  cat $(VENV).log; rm -rf $(VENV) $(VENV).log; \
	  echo "setup: $$found cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; \
	fi; rm -f $(VENV).log

, := ,
# $(1): what to install, $(2): what it is, $(3): options. pip reports its own errors; the hint is for a machine without a network.
define install
@echo "setup: installing sessiondb $(2)"
@$(BIN)/python -m pip install --quiet $(3) --editable '$(1)' || \
  { echo "setup: pip failed (above). It needs a package index or PIP_FIND_LINKS; then run make again."; exit 1; }
endef

$(VENV)/.run: pyproject.toml $(VENV)/pyvenv.cfg
	$(call install,.,and what it needs to run)
	@touch $@

$(VENV)/.gateway: pyproject.toml $(VENV)/pyvenv.cfg
	$(call install,.[gateway],with a web server for the reference gateway)
	@touch $(VENV)/.run $@

$(VENV)/.dev: pyproject.toml $(VENV)/pyvenv.cfg $(if $(LOCKED),$(VENV)/.locked)
	$(call install,.[dev],with the tools for development,$(if $(LOCKED),--no-deps --no-build-isolation))
	@touch $(VENV)/.run $(VENV)/.gateway $@

$(VENV)/.docs: pyproject.toml $(VENV)/pyvenv.cfg
	$(call install,.[docs],with what builds its site)
	@touch $(VENV)/.run $@

$(VENV)/.locked: requirements-dev.lock $(VENV)/pyvenv.cfg
	@echo "setup: installing the versions of requirements-dev.lock"
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	@touch $@

$(VENV)/.shuffle: pyproject.toml $(VENV)/pyvenv.cfg $(VENV)/.dev
	$(call install,.[dev$(,)shuffle],with what shuffles its tests)
	@touch $@

$(VENV)/.openapi/.installed: $(VENV)/pyvenv.cfg
	@echo "setup: schemathesis, in $(@D)"
	@$(BIN)/python -m venv $(@D) && $(@D)/bin/python -m pip install --quiet 'schemathesis>=4.32,<5' && touch $@ || \
	  { echo "setup: schemathesis cannot be installed (above). It needs a package index; then run make again."; exit 1; }

# Without npm nothing is installed, and the target says how to get the readers.
$(VENV)/.oracle/.installed: tests/proofs/oracle/readers.py $(VENV)/pyvenv.cfg
	@if command -v npm >/dev/null; then \
	  echo "setup: the real readers, in $(VENV)/.oracle"; mkdir -p $(@D) && echo '{"private":true}' >$(@D)/package.json && \
	  cd $(@D) && npm install --ignore-scripts --no-audit --no-fund --omit=dev --omit=optional --loglevel=error \
	    $$(cd $(CURDIR) && $(BIN)/python -c 'from tests.proofs.oracle.readers import PACKAGES; print(*PACKAGES.values())') && touch $(@F) || \
	  { echo "setup: npm failed (above). It needs a package registry; then run make again."; exit 1; }; \
	fi

$(VENV)/.openclaw/.installed: tests/proofs/openclaw/program.py $(VENV)/pyvenv.cfg
	@if command -v npm >/dev/null; then \
	  echo "setup: OpenClaw and its node, in $(VENV)/.openclaw"; \
	  for one in $$($(BIN)/python -c 'from tests.proofs.openclaw.program import PACKAGES; print(*map("=".join, PACKAGES.items()))'); do \
	    folder=$(@D)/$${one%%=*}; mkdir -p $$folder && echo '{"private":true}' >$$folder/package.json && \
	    (cd $$folder && npm install --ignore-scripts --no-audit --no-fund --omit=dev --loglevel=error $${one#*=}) || \
	    { echo "setup: npm failed (above). It needs a package registry; then run make again."; exit 1; }; \
	  done; touch $@; \
	fi

# Beside what is there: where atheris has no wheel for this Python and platform it is compiled, which may fail.
$(VENV)/.fuzz: pyproject.toml $(VENV)/pyvenv.cfg $(VENV)/.dev
	@echo "setup: installing the coverage-guided fuzzer (atheris)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev,fuzz]' || \
	  { echo "setup: NO COVERAGE-GUIDED FUZZER: atheris cannot be installed here (above); it has wheels for some Pythons on Linux and macOS only."; \
	    echo "       make fuzz COVERAGE=no runs everything else."; exit 1; }
	@touch $@
