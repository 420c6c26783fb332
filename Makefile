# Every target sets up what it needs and is quick the second time.
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
	$(PIP) -e '.[gateway,vl,video,studio,demo]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) -e '.[dev,engines,otel,rtx]'
	touch $@

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

# Types are checked beside the tests, in what they leave of the processors, and told after them.
test: setup-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	@told=$$(mktemp); nice $(VENV)/bin/pyright >$$told 2>&1 & types=$$!; \
	trap "kill $$types; rm -f $$told; exit 130" INT TERM; \
	$(PY) -m pytest $(PARALLEL) -m '$(HERE)'; tests=$$?; \
	wait $$types; types=$$?; echo pyright:; cat $$told; rm -f $$told; exit $$((tests | types))

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
