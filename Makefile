# make quickstart | env | test | test-fast | fuzz | lint | docs | bench | legs | backbones | device-test | app | screenshots | requirements | clean
# Needs python3 (3.10 to 3.13, with venv) and make. uv is used where it is on the
# PATH; else it is brought into .venv. A second call starts at once: each step leaves
# a stamp in .venv that depends on the pinned requirements.

PYTHON ?= python3
VENV ?= .venv
RUNS ?= artifacts
PHOTOS ?=
SHARE ?= 0/1
PORT ?= 8501

BIN := $(VENV)/bin
UV := $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)
# Compile as pip does: else, where Python may not write its cache, every process compiles
# TensorFlow anew.
INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python
# Three workers for two cores, since some tests wait; modules stay whole, slow ones first.
# A test that hangs fails after five minutes, with the stacks of its threads.
PYTEST := $(BIN)/python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder \
	--timeout 300 --max-worker-restart 1
COMPILE := UV_CUSTOM_COMPILE_COMMAND='make requirements' $(UV) pip compile --quiet \
	--universal --python-version 3.10 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links

.PHONY: quickstart env test test-fast fuzz lint format docs bench legs backbones device-test app screenshots requirements clean python
.DELETE_ON_ERROR:

# Fine-tune a pretrained network and train a small CNN on the drawn sample set, or on
# your own photos (make quickstart PHOTOS=dir); compare them; classify two new pictures.
quickstart: $(VENV)/.train
	@echo "== 1 of 3: fine-tune a pretrained network"
	$(BIN)/edgegraft build $(PHOTOS) --artifacts $(RUNS) --run quickstart --overwrite
	@echo "== 2 of 3: train a small network beside it"
	$(BIN)/edgegraft build $(or $(PHOTOS),$(RUNS)/sample/photos) --artifacts $(RUNS) \
		--run quickstart-cnn --backbone custom_cnn --overwrite
	@echo "== 3 of 3: which of their files to ship"
	$(BIN)/edgegraft compare $(RUNS)/quickstart $(RUNS)/quickstart-cnn
ifeq ($(PHOTOS),)
	$(BIN)/edgegraft edge classify $$($(BIN)/python -c 'import json; print(json.load( \
		open("$(RUNS)/comparison/comparison.json"))["ship"]["path"])') \
		$(RUNS)/sample/test_cat.jpg $(RUNS)/sample/test_dog.jpg
endif

# What training and notebooks need, without the sample's run.
env: $(VENV)/.train

# The camera's minute (a source taken away five times) passes beside the other tests.
test: $(VENV)/.dev
	@$(BIN)/python tests/benchmarks/camera_soak.py --minutes 1 & soak=$$!; \
	$(PYTEST); tests=$$?; \
	wait $$soak || { echo "the camera's minute failed" >&2; exit 1; }; exit $$tests

# Without the slow ones: a minute and a half.
test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow"

# Hostile files through commands and page, at random: a quarter of an hour.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=. $(BIN)/mypy --config-file= --explicit-package-bases \
		--ignore-missing-imports --follow-imports=silent tests/benchmarks

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes docs/cli.md from what --help prints.
docs: $(VENV)/.dev
	$(BIN)/python tests/cli_docs.py

# The measured comparisons; each ends in one JSON line.
bench: $(VENV)/.dev
	for script in tests/benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# The same files in environments of their own: LiteRT alone, tflite-runtime, MediaPipe.
legs: $(VENV)/.dev
	$(BIN)/python tests/legs/run.py --uv "$(UV)"

# An emulated Raspberry Pi, 64 and 32 bits: answers as here? Needs Debian or Ubuntu.
device-test: $(VENV)/.dev
	$(BIN)/python tests/device/run.py

# Every variant of every backbone, with random weights: minutes. SHARE=0/6: a sixth.
backbones: $(VENV)/.dev
	$(BIN)/python tests/legs/every_backbone.py --uv "$(UV)" --share $(SHARE)

# Streamlit and what training needs, without the developers' tools. PORT=8600: another.
app: $(VENV)/.app
	$(BIN)/edgegraft app --port $(PORT)

# Every page of the app, from a run on the drawn sample set; look at them.
screenshots: $(VENV)/.dev
	$(BIN)/python tests/screenshots.py --artifacts $(RUNS) --docs

# Pins every requirement file anew (needs the network).
requirements: | $(UV)
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra train -o requirements/train.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra app --extra train -c requirements/dev.txt -o requirements/app.txt
	$(COMPILE) pyproject.toml -o requirements/device.txt
	$(COMPILE) pyproject.toml --extra test -o requirements/device-test.txt
	$(COMPILE) requirements/mediapipe.in -o requirements/mediapipe.txt
	$(COMPILE) requirements/ray.in -o requirements/ray.txt
	$(COMPILE) requirements/runtimes.in -o requirements/runtimes.txt
	$(COMPILE) requirements/executorch.in -o requirements/executorch.txt
	$(COMPILE) requirements/tflite-runtime.in -o requirements/tflite-runtime.txt
	$(COMPILE) requirements/peers.in -o requirements/peers.txt
	$(COMPILE) requirements/tfmot.in -o requirements/tfmot.txt

# Keeps artifacts/: what you built is yours.
clean:
	rm -rf $(VENV) $(VENV).making .legs .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './artifacts/*' -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------

python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit( \
	None if (3, 10) <= v[:2] <= (3, 13) else \
	"make: error: expected Python 3.10 to 3.13, got %d.%d at %s; run make PYTHON=python3.11" \
	% (v[0], v[1], sys.executable))'

# Only an environment that make made, or was making, is cleared.
$(VENV)/.made: | python
	@if [ -e $(VENV) ] && [ ! -e $(VENV).making ]; then \
		echo "make: error: $(VENV) exists, but make did not create it;" \
			"choose another: make VENV=.venv-edgegraft" >&2; exit 1; fi
	@touch $(VENV).making
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --clear --python $(PYTHON) $(VENV); \
	else $(PYTHON) -m venv --clear $(VENV) || \
		{ echo "make: error: $(PYTHON) has no venv; on Debian: apt install python3-venv" >&2; exit 1; }; fi
	@touch $@ && rm -f $(VENV).making

$(BIN)/uv: $(VENV)/.made requirements/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.train: $(VENV)/.made requirements/train.txt pyproject.toml | $(UV)
	$(INSTALL) --require-hashes -r requirements/train.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.app: $(VENV)/.made requirements/app.txt pyproject.toml | $(UV)
	$(INSTALL) --require-hashes -r requirements/app.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements/dev.txt pyproject.toml | $(UV)
	$(INSTALL) --require-hashes -r requirements/dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.train $(VENV)/.app $@
