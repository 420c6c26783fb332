# Every target sets up what it needs and is quick the second time.
# The tests start some hundred processes: set, this has each of them compile every file that it imports.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
PY := $(VENV)/bin/python
PARALLEL := -n 3 --dist loadscope --no-loadscope-reorder
HERE := not full and not gpu and not containers
PIP := $(PY) -m pip --disable-pip-version-check install -q -c constraints.txt

.NOTPARALLEL:
.PHONY: setup setup-dev demo run test test-fast test-full coverage check test-gpu containers-test engines-full clean

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PIP) -e '.[gateway,vl,video,studio]'
	touch $@

# All in one call, and of 300 MB of sources only what is imported gets compiled: a minute less.
$(VENV)/.ready-dev: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PIP) --no-compile -e '.[gateway,vl,video,studio,dev,engines,otel,rtx]'
	touch $(VENV)/.ready $@

# make demo IMAGE=cat.jpg PROMPT="slow zoom out" STUDIO=1: as they were typed (make would read $ as its own), and handed on in the
# environment, so that quotes, # and ends of lines in them do no harm.
override IMAGE := $(value IMAGE)
override PROMPT := $(value PROMPT)
export IMAGE PROMPT STUDIO
demo: setup
	$(VENV)/bin/stillmotion demo --output out/demo.mp4 $${IMAGE:+--image="$$IMAGE"} $${PROMPT:+--prompt="$$PROMPT"} $${STUDIO:+--studio}

run: setup
	exec $(VENV)/bin/stillmotion serve

check: setup-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

test: setup-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(PY) -m pytest $(PARALLEL) -m '$(HERE)'

test-fast: setup-dev
	$(PY) -m pytest $(PARALLEL) -m 'not slow and $(HERE)'

coverage: setup-dev
	$(PY) -m pytest $(PARALLEL) -m '$(HERE)' --cov --cov-report=term

test-full: test
	$(PY) -m pytest $(PARALLEL) -m 'full and not gpu'

test-gpu: setup-dev
	$(PY) -m pytest -m gpu

# Full-size graphs with random weights for RTX GPUs, on this machine: an hour or so, 14 GB of memory, 10 GB of disk.
engines-full: setup-dev
	$(PY) -m bench.engines_full

containers-test: setup-dev
	$(PY) -m pytest -m containers tests/containers

clean:
	rm -rf $(VENV) out data .pytest_cache .ruff_cache .coverage*
