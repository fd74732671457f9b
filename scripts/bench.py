#!/usr/bin/env python3
"""Times train steps of mmrun beside PyTorch's, alternating in one run, and prints a Markdown table of medians and ratios.

    make bench                      # needs MMC_PYTHON, a Python with torch, diffusers and safetensors
    python scripts/bench.py --rounds 3 --threads 2

Each round runs PyTorch, then ours, as processes of their own: a machine that slows down slows both. The same model,
batch and optimiser (AdamW, weight decay 0.01, clip 1.0); ours on synthetic values, PyTorch on random ones.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

MODELS = {
    "DiT 512 x 8, 1,560 tokens": ["--dim", "512", "--layers", "8", "--tokens", "1560"],
    "DiT 256 x 4, 1,024 tokens": ["--dim", "256", "--layers", "4", "--tokens", "1024"],
}


def ours(plan, threads, steps, folder):
    metrics = folder / "metrics.jsonl"
    command = [ROOT / "target/release/mmrun", plan, "--steps", str(steps + 1), "--threads", str(threads), "--metrics", metrics]
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    metrics.unlink()
    return [row["seconds"] for row in rows if "seconds" in row][1:]


def torch(words, threads, steps):
    command = [sys.executable, str(ROOT / "tests/goldens/bench_torch.py"), *words, "--threads", str(threads), "--steps", str(steps)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--steps", type=int, default=3, help="timed steps a round")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    a = p.parse_args()
    print("| model | dtype | PyTorch s | ours s | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for model, words in MODELS.items():
            theirs, mine = [], []
            for _ in range(a.rounds):
                found = torch(words, a.threads, a.steps)
                theirs.append(found["median_s"])
                plan = folder / "plan.bin"
                if not mine:
                    sets = [w for k, v in found["set"].items() for w in ("--set", f"{k}={v}")]
                    command = [str(ROOT / "target/release/mmc"), "compile", str(ROOT / "models/wan2.2.mm"), "-o", str(plan), *sets]
                    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
                mine += ours(plan, a.threads, a.steps, folder)
            t, m = statistics.median(theirs), statistics.median(mine)
            print(f"| {model} | f32 | {t:.3f} | {m:.3f} | {t / m:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
