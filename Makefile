# make demo    one command from nothing: a camera, a sentence, the object's pose (SAY="put the white mug on the plate")
# make test    what CI runs
# make build   the programs;  make setup   ROS 2 and the interfaces only (scripts/setup_ros.sh says how)
#
# A sourced ROS 2 is used; with none, one is made in ~/.cache/language_grounding. Steps already done are not repeated.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SAY ?= pick up the red mug
export SAY
# Where the demo and the ROS tests find the programs.
export LG_BIN_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))/release
# Demo and tests neither hear nor disturb other machines.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

in_ros = source build/env.sh &&
say = @printf '\n== %s\n'

.PHONY: help
help:
	@sed -n 's/^# //p' Makefile | head -3

.PHONY: setup
setup:
	@scripts/setup_ros.sh

.PHONY: build
build: setup
	@$(in_ros) cargo build --release --locked --bins

.PHONY: demo
demo: build
	@$(in_ros) scripts/demo.sh "$$SAY"

.PHONY: test
test: lint test-rust test-ros
	$(say) "all tests passed"

.PHONY: lint
lint: setup
	$(say) "format"
	@cargo fmt --all --check
	$(say) "Python, documents, licenses"
	@scripts/lint_python.sh
	@scripts/parameters_doc.py --check
	@scripts/check_licenses.py
	$(say) "lints, with ROS"
	@$(in_ros) cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(say) "lints, without ROS"
	@cargo clippy --release --locked --workspace --all-targets --no-default-features -- -D warnings
	$(say) "documentation of the library"
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --lib --release --locked --no-deps --no-default-features

.PHONY: test-rust
test-rust: setup
	$(say) "Rust tests"
	@$(in_ros) cargo test --release --locked --workspace

# The Rust tests on a machine without ROS.
.PHONY: test-core
test-core:
	@cargo test --release --locked --workspace --no-default-features

.PHONY: test-ros
test-ros: build
	$(say) "ROS tests (real DDS, rclpy on the other side)"
	@$(in_ros) python3 -m pytest -p no:cacheprovider -ra tests/ros

# Figures of the shipped model, in build/eval (metrics.json, index.html with the worst failures): generated scenes never trained on,
# primitives drawn by MuJoCo where python3 has it, and LIBERO frames with ground truth if LIBERO_DEV names their folder (frames.jsonl,
# see tests/eval/libero.py).
EVAL_DIR ?= build/eval
EVAL_SCENES ?= 1000
EVAL_MODEL ?= florence2_tiny_tabletop
LIBERO_DEV ?=
.PHONY: eval
eval:
	@cargo build --release --locked --no-default-features --bin ground --bin scene_dataset
	@rm -rf $(EVAL_DIR) && mkdir -p $(EVAL_DIR)
	@$(LG_BIN_DIR)/scene_dataset --queries --seeds 900001000..$$((900001000 + $(EVAL_SCENES))) --out $(EVAL_DIR)/generated
	@python3 tests/eval/primitives.py $(EVAL_DIR)/primitives || test $$? -eq 3
	@$(if $(LIBERO_DEV),python3 tests/eval/libero.py nouns $(LIBERO_DEV) $(EVAL_DIR)/libero)
	@for set in $(EVAL_DIR)/*/; do \
	  $(LG_BIN_DIR)/ground --model $(EVAL_MODEL) --batch $$set/queries.jsonl --output $$set/results.jsonl; done
	@python3 tests/eval/score.py $(EVAL_DIR)/*/ --out $(EVAL_DIR)

# Relations on physically settled scenes with perfect boxes, by relation (docs/evaluation.md). ASSETS names the folder of models that
# training/setup.sh fills; the interpreter needs mujoco, numpy and pillow. Fails where a relation is under 95 %.
ASSETS ?=
SETTLED_PYTHON ?= python3
SETTLED_QUESTIONS ?= 1200
.PHONY: eval-settled
eval-settled:
	@test -n "$(ASSETS)" || { echo "ASSETS is not set: name the folder of models that training/setup.sh fills" >&2; exit 2; }
	@cargo build --release --locked --no-default-features --bin ground
	@MUJOCO_GL=osmesa $(SETTLED_PYTHON) tests/eval/settled.py build $(ASSETS) $(EVAL_DIR)/settled --questions $(SETTLED_QUESTIONS)
	@$(LG_BIN_DIR)/ground --batch $(EVAL_DIR)/settled/queries.jsonl --output $(EVAL_DIR)/settled/results.jsonl
	@python3 tests/eval/settled.py score $(EVAL_DIR)/settled

.PHONY: lock
lock:
	scripts/lock_ros.py $(or $(PYTHONS),$(error PYTHONS="python3.10 ... python3.14": the interpreters to resolve for))

# Results of cargo; ROS stays.
.PHONY: clean
clean:
	cargo clean

# The ROS prefix and the interfaces made here, not a sourced ROS.
.PHONY: clean-ros
clean-ros:
	scripts/setup_ros.sh --remove
