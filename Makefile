# The commands of the README, each from a bare machine: make run, make check, make test.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
TOOLS := .tools
# A file stays in one process, so that its fixtures are made once; in order of their names the
# longest ones do not all come last.
PYTEST := $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run check test reliability lint browser demo bench words study study-direction study-when lock audit

run: $(VENV)/run.done
	$(PY) -m grads dashboard

# What needs no job, no browser and no build: for every change, in minutes.
check: $(VENV)/dev.done lint
	$(PYTEST) -m "not (job or browser or wheel)"

test: $(VENV)/dev.done lint browser
	$(PYTEST)

# The tests of reliability at their full length, for hours: they read RELIABILITY (tests/conftest.py).
reliability: $(VENV)/dev.done browser
	RELIABILITY=full $(PY) -m pytest -m full --timeout 0

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

# When gradients are taken, and how much of the data the warm-up sees.
study-when: $(VENV)/run.done
	PYTHONPATH=.:assets $(PY) assets/when_study.py $(DATA)

bench: $(VENV)/dev.done
	$(PY) -m grads bench

# The words of the pages, collected for their translations in studio/languages.
words: $(VENV)/run.done
	PYTHONPATH=. $(PY) assets/words.py

# The locks, and the list of licences, made anew from the requirement files.
lock: $(TOOLS)/done
	$(TOOLS)/bin/python assets/lock.py
	$(MAKE) $(VENV)/dev.done
	$(PY) assets/licences.py

# Known vulnerabilities of all that is locked, and of torch; asks a public database.
audit: $(TOOLS)/done
	grep "^torch==" requirements.txt > $(TOOLS)/torch.txt
	$(TOOLS)/bin/pip-audit --disable-pip --require-hashes -r requirements.lock -r requirements-dev.lock
	$(TOOLS)/bin/pip-audit --disable-pip --no-deps -r $(TOOLS)/torch.txt

$(TOOLS)/done: requirements-tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tools.txt
	touch $@

# From the locks come all packages but torch, whose files differ by where it is taken from.
$(VENV)/run.done: requirements.txt requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-deps --require-hashes -r requirements.lock
	$(INSTALL) -r requirements.txt
	touch $@

$(VENV)/dev.done: requirements-dev.lock $(VENV)/run.done
	$(INSTALL) --no-deps --require-hashes -r requirements-dev.lock
	touch $@
