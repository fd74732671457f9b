#!/usr/bin/env python3
"""Times train steps of mmrun beside PyTorch's, alternating in one run, and writes a table and a roofline.

    make bench                                            # needs MMC_PYTHON, a Python with torch, diffusers and transformers
    python scripts/bench.py --only dit512-f32-2,lm512     # rows whose names begin so: MODEL-DTYPE-THREADS
    python scripts/bench.py --rounds 5 --no-compile --out target/bench

A row starts PyTorch twice, eager and with each block under torch.compile, and keeps both. A round asks each of them for
some steps, then runs ours: a machine that slows down slows all. All have the same model, optimiser (AdamW, weight decay 0.01, clip 1.0)
and inputs, which stay in memory: none draws any in a timed step. `of peak` is the share of the machine's measured limit of
products that a step's FLOP reach. `bench.md` gets a table of medians, `ROW.svg` the kernels of a row beside the limits.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from roofline import draw

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
MMC, MMRUN = BUILT / "mmc", BUILT / "mmrun"

# Names, the model's file, and how PyTorch builds it.
MODELS = {
    "dit256": ("DiT 256 x 4, 1,024 tokens", "models/wan2.2.mm", ["--model", "wan", "--dim", "256", "--layers", "4", "--tokens", "1024"]),
    "dit512": ("DiT 512 x 8, 1,560 tokens", "models/wan2.2.mm", ["--model", "wan", "--dim", "512", "--layers", "8", "--tokens", "1560"]),
    "dit1536": ("DiT 1536 x 2, 1,560 tokens", "models/wan2.2.mm", ["--model", "wan", "--dim", "1536", "--layers", "2", "--tokens", "1560"]),
    "lm512": ("LM 512 x 8, 1,024 tokens, vocabulary 32,000", "models/qwen3.mm", ["--model", "qwen3", "--dim", "512", "--layers", "8", "--tokens", "1024"]),
    "moe512": ("LM of experts 512 x 8, 32 of which each of 1,024 tokens takes 4, vocabulary 32,000", "models/qwen3_moe.mm", ["--model", "qwen3_moe", "--dim", "512", "--layers", "8", "--tokens", "1024"]),
    "bias512": ("attention with T5's bias, 512 tokens, 8 heads of 64", "scripts/bench/attention.mm", ["--model", "attention", "--kind", "bias", "--tokens", "512"]),
    "windows4096": ("64 windows of 64 tokens, 8 heads of 64", "scripts/bench/attention.mm", ["--model", "attention", "--kind", "windows", "--tokens", "4096"]),
    "sliding4096": ("a window of 64 to either side, 4,096 tokens, 8 heads of 64", "scripts/bench/attention.mm", ["--model", "attention", "--kind", "sliding", "--tokens", "4096"]),
    "experts1024": ("Experts 1024 x 512, 64 of which each of 4,096 tokens takes 8", "tests/goldens/experts.mm", ["--model", "experts", "--dim", "1024", "--tokens", "4096"]),
}
HEADER = (
    "| row | eager s | compile s | ours s | ratio | ours of peak | theirs of peak | first step: eager, compile, ours s | RSS: eager, compile, ours MB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


class Torch:
    """A PyTorch process that runs steps when asked."""

    def __init__(self, words, dtype, threads, compiled, inputs):
        words = [*words, "--dtype", dtype, "--threads", threads, "--inputs", inputs]
        command = [str(word) for word in [sys.executable, ROOT / "tests/goldens/bench_torch.py", *words]]
        self.process = subprocess.Popen(command + ["--compile"] * compiled, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        about = self.read()
        self.dims, self.first, self.rss, self.times = about["set"], about["first_step_s"], 0, []

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("the PyTorch process ended; its error is above")

    def steps(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        found = self.read()
        self.times += found["times"]
        self.rss = found["rss_mb"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    def __init__(self, model, dims, dtype, threads, folder, inputs):
        self.plan, self.metrics, self.trace = folder / "plan.bin", folder / "metrics.jsonl", folder / "trace.json"
        self.command = [MMRUN, self.plan, "--inputs", inputs, "--threads", threads]
        sets = [w for k, v in dims.items() for w in ("--set", f"{k}={v}")]
        begin = time.perf_counter()
        run([MMC, "compile", ROOT / model, "--dtype", dtype, "-o", self.plan, *sets])
        self.compile = time.perf_counter() - begin
        self.first, self.rss, self.times = None, 0, []

    def steps(self, count):
        """As many steps after the first, which stands for the start."""
        self.metrics.unlink(missing_ok=True)
        words = [*self.command, "--steps", count + 1, "--metrics", self.metrics]
        process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begin, first, ended = time.perf_counter(), None, 0
        while not ended:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG if first is None else 0)
            if first is None and self.metrics.exists() and "\n" in self.metrics.read_text():
                first = time.perf_counter() - begin
            time.sleep(0.005 if first is None else 0)
        if status:
            raise SystemExit(f"mmrun failed: run it by hand: {' '.join(str(w) for w in words)}")
        rows = [json.loads(line) for line in self.metrics.read_text().splitlines()]
        rows = [row for row in rows if "seconds" in row]
        self.times += [row["seconds"] for row in rows[1:]]
        self.work = rows[-1]["gflops"] * rows[-1]["seconds"]
        self.first = self.first or first
        self.rss = max(self.rss, usage.ru_maxrss // 1024)

    def kernels(self, limits, dtype):
        """What each kernel does and takes, from a trace of two steps."""
        run([*self.command, "--steps", 3, "--trace", self.trace])
        words = [MMC, "explain", self.plan, "--json", "--kernels", "--trace", self.trace]
        text = run([*words, "--peak", limits[dtype], "--bandwidth", limits["bandwidth"]])
        return json.loads(text)["kernels"][0]


def run(words):
    return subprocess.run([str(w) for w in words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def machine_limits():
    """GFLOP/s and GB/s by threads, measured now."""
    words = ["cargo", "test", "--release", "-q", "-p", "target-cpu", "--test", "matmul", "--", "--ignored", "--nocapture", "limits"]
    lines = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [json.loads(line[line.index("{"):]) for line in lines if '"threads"' in line]
    return {limits["threads"]: limits for limits in found}


def measure(name, a, limits, folder):
    model, dtype, threads = name.split("-")
    title, file, words = MODELS[model]
    folder.mkdir(parents=True, exist_ok=True)
    limits = limits[int(threads)]
    inputs = folder / "inputs.safetensors"
    theirs = [Torch(words, dtype, threads, compiled, inputs) for compiled in ([False, True] if a.compile else [False])]
    ours = Ours(file, theirs[0].dims, dtype, threads, folder, inputs)
    for _ in range(a.rounds):
        for side in [*theirs, ours]:
            side.steps(a.steps)
    for side in theirs:
        side.end()
    draw(a.out / f"{name}.svg", f"{title}, {dtype}, {threads} threads", limits, dtype, ours.kernels(limits, dtype))
    mine, fastest = statistics.median(ours.times), min(statistics.median(side.times) for side in theirs)
    share = lambda seconds: f"{ours.work / seconds / limits[dtype]:.0%}"
    column = lambda values: ", ".join(values if len(values) == 3 else [values[0], "-", values[1]])
    medians = [f"{statistics.median(side.times):.3f}" for side in theirs] + ["-"] * (2 - len(theirs))
    cells = [name, *medians, f"{mine:.3f}", f"**{fastest / mine:.2f}**", share(mine), share(fastest)]
    cells += [column([f"{side.first:.1f}" for side in [*theirs, ours]]), column([f"{side.rss:,}" for side in [*theirs, ours]])]
    return "| " + " | ".join(cells) + " |"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="", help="names of rows or how they begin, with commas between")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=2, help="timed steps of each side in a round")
    p.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "target/bench")
    a = p.parse_args()
    names = [f"{model}-{dtype}-{threads}" for model in MODELS for dtype in ("f32", "bf16") for threads in (2, 1)]
    rows = [name for name in names if any(name.startswith(word) for word in a.only.split(","))]
    if not rows:
        raise SystemExit(f"--only {a.only} names no row; there are {', '.join(names)}")
    limits = machine_limits()
    report = [f"Limits measured in this run: {json.dumps(list(limits.values()))}.", "", HEADER]
    print("\n".join(report), flush=True)
    for name in rows:
        report.append(measure(name, a, limits, a.out / name))
        print(report[-1], flush=True)
        (a.out / "bench.md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
