# The environment is made where it is missing; PYTHON picks the interpreter, VENV the folder.
PYTHON ?= python3
VENV ?= .venv
# Test processes; each keeps to one thread, since threads of two processes on two cores wait for one another.
JOBS ?= 2
BIN := $(VENV)/bin

# Compiled modules and tests are kept: without them each test process, and each that a test starts, compiles all of them again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test torture browser lint site wheel clean

quickstart: $(VENV)/.installed
	$(BIN)/distillscope run quickstart --resume

test: $(VENV)/.installed-test browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Attacks on the program, with the counts of what held (docs/recovery.md). SHORT=1 takes minutes; ATTACKS="kills names", ROUNDS=20, INPUTS=2000,
# SEED=1, MINUTES=10 choose; WORK is where it goes on from, MARKDOWN where the counts are written as a page.
WORK ?= runs/torture
torture: $(VENV)/.installed-test browser
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=tests$${PYTHONPATH:+:$$PYTHONPATH} $(BIN)/python -m torture $(ATTACKS) --work $(WORK) \
	  $(if $(SHORT),--short) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(INPUTS),--inputs $(INPUTS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ONLY),--only $(ONLY)) $(if $(MARKDOWN),--markdown $(MARKDOWN))

# Tests of the page run in Debian's chromium and are skipped without it: installed where that takes no question, else left alone.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  timeout 90 apt-get update -qq >/dev/null 2>&1; \
	  DEBIAN_FRONTEND=noninteractive timeout 240 apt-get install -qq -y --no-install-recommends chromium >/dev/null 2>&1; \
	fi; \
	command -v chromium >/dev/null || echo "no chromium: the tests of the page in a browser will be skipped"

# Style, types, and which folder may import which (pyproject.toml says what each checks).
lint: $(VENV)/.installed-test
	$(BIN)/ruff check src tests benchmarks results
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site, in site/: any static host serves it. A warning is an error.
site: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The package as it is published, in dist/, tried in a clean environment of each of PYTHONS: a student is distilled and audited there.
PYTHONS ?= $(PYTHON)
wheel: $(VENV)/.installed-test
	rm -rf dist && $(BIN)/python -m build --outdir dist .
	for python in $(PYTHONS); do rm -rf dist/tried && $$python -m venv dist/tried/env && \
	  dist/tried/env/bin/python -m pip install --quiet dist/*.whl && cd dist/tried && env/bin/python --version && \
	  env/bin/distillscope --version && env/bin/distillscope list presets && env/bin/distillscope selftest && \
	  env/bin/distillscope distill --teacher efficientnet_lite0 --data digits --limit 200 --epochs 1 --out student && \
	  env/bin/distillscope audit --teacher efficientnet_lite0 --student student --data digits --limit 100 --no-timing && \
	  cd ../.. || exit 1; done
	rm -rf dist/tried

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) runs dist site
