# `make demo` and `make test` do all of their own set-up on a machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint docs pictures bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "medllm needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/medllm demo --out out/demo

# A process a core, each computing with one thread: small models gain nothing from more. Who has
# done his half takes tests from the other: files differ too much to be dealt out whole.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet medllm
	$(BIN)/lint-imports

# Pages that follow from the code; the tests fail when one is out of date.
docs: $(READY)
	$(BIN)/python docs/make_pages.py

# Pictures of the pages, of the bundled model and of phantoms; wants chromium, takes minutes.
pictures: $(READY)
	$(BIN)/python docs/make_pictures.py

bench: $(READY)
	$(BIN)/python benchmarks/shared_prefix.py

clean:
	rm -rf $(VENV) out
