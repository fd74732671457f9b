# Each target does its own set-up: LLVM and MLIR 22 from apt, everything else through cargo.

.PHONY: setup build demo quick test lint bench oracle clean

setup:
	@sh scripts/setup-llvm.sh

build: setup
	cargo build --release -p mmc -p mmrun

# Compiles the preset `mini` and trains it on moving digits for about two minutes.
demo: build
	mkdir -p demo
	target/release/mmc compile models/wan2.2.mm --preset mini --batch 4 --optim lr=1e-3,schedule=cosine,warmup=20,total=2000 -o demo/plan.bin
	target/release/mmrun demo/plan.bin --data models/data/moving_digits.tar --seconds 120 --save demo/checkpoints --save-over

# What needs neither LLVM nor MPI nor the network.
QUICK = -p diag -p types -p ir -p plan -p cost -p program -p report -p passes -p eval -p mm -p models -p target \
        -p target-ascend -p comm -p runtime-core -p device -p data -p mmrun

quick:
	cargo fmt --all --check
	cargo clippy $(QUICK) -p tests --lib --bins -- -D warnings
	cargo test -q $(QUICK) --lib --bins
	cargo test -q -p tests --test ops --test passes --test frontend --test layering

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: lint
	cargo build -p mmc -p mmrun
	cargo test --workspace
	@sh scripts/setup-oracle.sh
	cargo build -p emulator-hccl
	BIN=target/debug sh scripts/ascend-oracle.sh
	@sh scripts/setup-mpi.sh
	cargo clippy -p comm -p mmrun --features mmrun/mpi --all-targets -- -D warnings
	cargo test -p comm -p mmrun --features mmrun/mpi --test processes -- --test-threads 1

# Needs a Python with torch and diffusers; MMC_PYTHON names it.
bench: build
	$(or $(MMC_PYTHON),python3) scripts/bench.py

# The Ascend target against what installs from PyPI: the torch-npu wheel, and pyhccl. Saved models against the classes
# that open them, where Python has torch, transformers and diffusers; MMC_PYTHON names it.
PYTHON = $(or $(MMC_PYTHON),python3)
oracle: build
	@sh scripts/setup-oracle.sh
	cargo build --release -p emulator-hccl
	sh scripts/ascend-oracle.sh
	@if $(PYTHON) -c "import torch, transformers, diffusers" 2>/dev/null; then $(PYTHON) scripts/pretrained_oracle.py; \
	else echo "oracle: $(PYTHON) has no torch, transformers and diffusers, so no saved model was opened"; fi

clean:
	cargo clean
	rm -rf demo
