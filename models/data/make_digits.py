#!/usr/bin/env python3
"""Writes moving_digits.tar: short clips of handwritten digits that drift and bounce, as latents for the `mini` preset of wan2.2.mm.

    pip install numpy scikit-learn safetensors
    python models/data/make_digits.py [--png preview.png]      (the preview needs pillow)

Source: the test half of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
doi 10.24432/C50P49, CC BY 4.0): 1,797 scans of 8x8, as they ship in scikit-learn (BSD-3-Clause), `sklearn.datasets.load_digits`.
The script needs no network. The same versions of numpy and scikit-learn write the same bytes.
"""
import argparse
import io
import pathlib
import tarfile

import numpy as np
from safetensors.numpy import save
from sklearn.datasets import load_digits

OUT = pathlib.Path(__file__).resolve().parent / "moving_digits.tar"
CLIPS = 512
FRAMES, CANVAS, DIGIT = 4, 32, 16  # a digit covers a quarter of the canvas and moves by whole pixels
TEXT_TOKENS, TEXT_WIDTH = 4, 16  # S and TEXT of the preset
MEAN, STD = 0.075, 0.2  # about what the pixels, 0 to 1, have: latents come out near zero mean and unit variance


def enlarge(scan):
    """8x8 to 16x16, bilinear about pixel centres, so that edges are soft as in a real latent."""
    at = np.clip((np.arange(DIGIT) + 0.5) / 2 - 0.5, 0, 7)
    low = np.minimum(at.astype(int), 6)
    w = at - low
    rows = scan[low] * (1 - w)[:, None] + scan[low + 1] * w[:, None]
    return rows[:, low] * (1 - w) + rows[:, low + 1] * w


def bounce(start, speed):
    """Positions over the frames, reflected at both walls."""
    room = CANVAS - DIGIT
    at = (start + speed * np.arange(FRAMES)) % (2 * room)
    return np.minimum(at, 2 * room - at)


def clip(scan, rng):
    """[FRAMES, CANVAS, CANVAS] in 0..1."""
    ys, xs = (bounce(rng.integers(CANVAS - DIGIT + 1), rng.integers(2, 7) * rng.choice([-1, 1])) for _ in range(2))
    video = np.zeros((FRAMES, CANVAS, CANVAS))
    for frame, y, x in zip(video, ys, xs):
        frame[y : y + DIGIT, x : x + DIGIT] = enlarge(scan / 16)
    return video


def to_latent(video):
    """Folds each 2x2 block of pixels into 4 channels (row, then column, within the block) and standardises: [4, F, 16, 16]."""
    f, h, w = video.shape
    folded = video.reshape(f, h // 2, 2, w // 2, 2).transpose(2, 4, 0, 1, 3).reshape(4, f, h // 2, w // 2)
    return ((folded - MEAN) / STD).astype(np.float16)


def to_video(latent):
    """The way back, for looking at clips."""
    c, f, h, w = latent.shape
    folded = latent.astype(np.float64) * STD + MEAN
    return folded.reshape(2, 2, f, h, w).transpose(2, 3, 0, 4, 1).reshape(f, 2 * h, 2 * w)


def records():
    digits, rng = load_digits(), np.random.default_rng(20250728)
    prompts = rng.standard_normal((10, TEXT_TOKENS, TEXT_WIDTH)).astype(np.float16)  # stands in for a text encoder: one fixed prompt a class
    for i, which in enumerate(rng.permutation(len(digits.images))[:CLIPS]):
        label = int(digits.target[which])
        tensors = {"latent": to_latent(clip(digits.images[which], rng)), "text": prompts[label]}
        yield f"{i:06}.safetensors", tensors, label


def write(path, items):
    # mtime, owner and mode are fixed, so that the bytes depend on the data alone.
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, tensors, label in items:
            data = save(tensors, metadata={"digit": str(label)})
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))


def preview(path, items, rows=8):
    from PIL import Image

    strips = [np.hstack(to_video(tensors["latent"])) for _, tensors, _ in items[: 2 * rows]]
    sheet = np.vstack([np.hstack(pair) for pair in zip(strips[:rows], strips[rows:])])
    image = Image.fromarray((255 * sheet.clip(0, 1)).astype(np.uint8))
    image.resize((3 * image.width, 3 * image.height), Image.NEAREST).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--png", help="also draw the first clips, one row of frames each")
    args = parser.parse_args()
    items = list(records())
    write(OUT, items)
    everything = np.stack([tensors["latent"] for _, tensors, _ in items]).astype(np.float64)
    counts = np.bincount([label for *_, label in items])
    print(f"{len(items)} clips, {OUT.stat().st_size} bytes, mean {everything.mean():.3f}, std {everything.std():.3f}, clips a digit {counts.tolist()}")
    if args.png:
        preview(args.png, items)


if __name__ == "__main__":
    main()
