# The two commands that matter: `make demo` and `make test`. Each makes .venv where it is missing.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	&& echo $$p && break; done)
# One setting for tests: a private Ray needs no token, and reports nothing home.
TEST_ENV := RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
FLAGS ?=

.PHONY: demo test test-long chaos cluster-test test-rllib test-hf457 test-readers check docs bench evidence \
	evidence-quick lock clean help

help:
	@echo "make demo    train on videos of Pong and show what was learned (under 3 minutes)"
	@echo "make test    run the tests (under 8 minutes on two cores)"
	@echo "make test-long   tests that take minutes, one after the other: faults, algorithms, sweeps, two nodes"
	@echo "make chaos   kill a random process of a run every 20 s for 5 minutes"
	@echo "make test-rllib   run the RLlib example in an environment of its own"
	@echo "make test-hf457   run the tests of the export with transformers 4.57"
	@echo "make test-readers run the tests of the video readers with torchcodec, and with decord2"
	@echo "make cluster-test  real clusters on test hosts of this machine (root, Linux; 6 minutes)"
	@echo "make check   formatting, lint, strict types"
	@echo "make docs    build the documentation as a web site in build/site"
	@echo "make bench   speed and memory of every part, as ratios (a few minutes)"
	@echo "make evidence   the study of samplers, row by row (hours; stopped, it goes on)"
	@echo "make evidence-quick   its main ordering, one seed (15 minutes on two cores)"

$(VENV)/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; install one, or use make PYTHON=/path/to/python3.12"; exit 2; }
	@echo "installing into $(VENV) (about 6 GB, a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/installed
	@$(BIN)/tats demo $(FLAGS)

test: $(VENV)/installed
	@$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile -m "not long" $(FLAGS)

test-long: $(VENV)/installed
	@$(TEST_ENV) $(BIN)/python -m pytest -m long $(FLAGS)

chaos: $(VENV)/installed
	@$(TEST_ENV) PYTHONPATH=. $(BIN)/python -m tests.runtime.chaos $(FLAGS)

# Says in one line what is missing: root, or Debian packages.
cluster-test: $(VENV)/installed
	@why="$$(PYTHONPATH=tests/cluster $(BIN)/python -c 'import hosts; print(hosts.missing())')"; \
	test -z "$$why" || { echo "$$why"; exit 2; }
	@TATS_CLUSTER_TEST=1 RAY_USAGE_STATS_ENABLED=0 \
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/cluster -v -s -x --no-header $(FLAGS)

# Types are checked in the layout of the wheel, where envs/ is tats_ray.envs.
check: $(VENV)/installed
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@rm -rf build/typed && mkdir -p build/typed
	@cp -as $(CURDIR)/tats_ray build/typed/ && cp -as $(CURDIR)/envs $(CURDIR)/benchmarks build/typed/tats_ray/
	@cd build/typed && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
	--cache-dir $(CURDIR)/.mypy_cache

# RLlib pins an older Gymnasium: an environment of its own, over the packages of the first.
$(VENV)-rllib/installed: $(VENV)/installed
	@$(BIN)/python -m venv $(VENV)-rllib
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	> "$$($(VENV)-rllib/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	@$(VENV)-rllib/bin/python -m pip install --quiet --disable-pip-version-check "ray[rllib]==2.60.0"
	@touch $@

test-rllib: $(VENV)-rllib/installed
	@$(TEST_ENV) PYTHONPATH=. $(VENV)-rllib/bin/python examples/rllib_ppo.py $(FLAGS)

# transformers 4.57 loads what is exported as 5.18 and newer do; an environment over the first.
$(VENV)-hf457/installed: $(VENV)/installed
	@$(BIN)/python -m venv $(VENV)-hf457
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	> "$$($(VENV)-hf457/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	@$(VENV)-hf457/bin/python -m pip install --quiet --disable-pip-version-check "transformers==4.57.6"
	@touch $@

test-hf457: $(VENV)-hf457/installed
	@$(TEST_ENV) PYTHONPATH=. $(VENV)-hf457/bin/python -m pytest tests/unit/checkpoints/test_huggingface.py $(FLAGS)

# torchcodec wants FFmpeg's libraries by their plain names; PyAV brings the same ones under others.
# decord2 stands before decord, whose name it has, in an environment of its own.
$(VENV)-readers/installed: $(VENV)/installed
	@$(BIN)/python -m venv $(VENV)-readers
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	> "$$($(VENV)-readers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	@$(VENV)-readers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "torchcodec==0.17.0"
	@$(VENV)-readers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	--target $(VENV)-readers/decord2 "decord2==3.4.0"
	@mkdir -p $(VENV)-readers/ffmpeg
	@for file in $$($(BIN)/python -c 'import av, pathlib; print(pathlib.Path(av.__file__).parents[1])')/av.libs/*; do \
	name=$$(basename $$file); ln -sf $$file $(VENV)-readers/ffmpeg/$$name; \
	ln -sf $$file $(VENV)-readers/ffmpeg/$$(sed -E 's/^(lib(av|sw)[a-z]+)-[0-9a-f]{8}(\.so\.[0-9]+).*/\1\3/' <<< $$name); done
	@touch $@

READER_TESTS := tests/unit/data/test_decode.py tests/unit/data/readers tests/unit/data/catalog
test-readers: $(VENV)-readers/installed
	@$(TEST_ENV) LD_LIBRARY_PATH=$(CURDIR)/$(VENV)-readers/ffmpeg PYTHONPATH=. \
	$(VENV)-readers/bin/python -m pytest $(READER_TESTS) $(FLAGS)
	@$(TEST_ENV) PYTHONPATH=.:$(VENV)-readers/decord2 $(BIN)/python -m pytest $(READER_TESTS) $(FLAGS)

# The site needs nothing of .venv: docstrings are read, not imported.
$(VENV)-docs/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; install one, or use make PYTHON=/path/to/python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV)-docs
	@$(VENV)-docs/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
	> $(VENV)-docs/requirements.txt
	@$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV)-docs/requirements.txt
	@touch $@

# The variable silences an advertisement that mkdocs-material prints, and nothing else.
docs: $(VENV)-docs/installed
	@NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build --strict $(FLAGS)
	@echo "the site is in build/site; open build/site/index.html"

# make bench FLAGS="--peer ~/adamae --save"
bench: $(VENV)/installed
	@$(BIN)/python benchmarks/speed/tables.py $(FLAGS)

# Rows that are in benchmarks/results/evidence are not run again.
evidence: $(VENV)/installed
	@PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python -m tats_ray.benchmarks.evidence $(FLAGS)

evidence-quick: $(VENV)/installed
	@PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python -m tats_ray.benchmarks.evidence quick $(FLAGS)

# Exact versions of everything that is installed now; GPU libraries exist for x86-64 Linux only.
lock: $(VENV)/installed
	@$(BIN)/python -m pip freeze --all --exclude pip --exclude wheel --exclude-editable \
	| sed -E 's/^((nvidia|cuda|triton)[^;]*)$$/\1 ; sys_platform == "linux" and platform_machine == "x86_64"/' \
	| sed -E 's/^(decord==.*)$$/\1 ; platform_machine == "x86_64"\ndecord2==3.4.0 ; platform_machine != "x86_64"/' \
	> requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-rllib $(VENV)-hf457 $(VENV)-readers $(VENV)-docs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
