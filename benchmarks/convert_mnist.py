"""Two published MNIST networks from ONNX to the emulated Speck: accuracy, latency and SynOps on 10,000 test images.

Run from the repository's root: ``python benchmarks/convert_mnist.py``. Rewrites ``convert_mnist.md`` and ``.json`` in
``benchmarks/results``, and one picture per network. Networks and images are those of ``../shared/data``; without them
it says so. The results do not depend on the machine, but for the training on, which is repeatable on one machine.
"""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import neurodeploy as nd
from neurodeploy.conversion.images import Coding, EncodedImages, Images
from neurodeploy.conversion.picture import curve_picture
from neurodeploy.conversion.torch_ann import answers
from neurodeploy.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
CODING = Coding(duration_us=100_000, dt_us=1000, max_rate_hz=500.0)
LATENCIES_US = (10_000, 20_000, 30_000, 50_000, 100_000)


def images(part: str) -> Images:
    folder = DATA / "mnist-20k"
    whole = nd.load_images(folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz")
    return replace(whole, source=f"mnist-20k, {part}")


def measure(name: str, what: str, ann: Any, training: Images, test: Images, input_scale: float) -> dict[str, Any]:
    conversion = nd.convert(ann, training[:64], coding=CODING, input_scale=input_scale)
    deployment = nd.compile(conversion.graph)
    curve = nd.latency_curve(deployment, EncodedImages(test, CODING), LATENCIES_US, threads=2)
    accuracy_ann = float((answers(ann, test, input_scale=input_scale) == test.labels).mean())
    write_text(RESULTS / f"convert_mnist_{name}.svg", curve_picture(curve, accuracy_ann))
    return {
        "name": name,
        "what": what,
        "accuracy_ann": accuracy_ann,
        "cores": {layer: core.core for layer, core in deployment.layers.items()},
        **curve.to_dict(),
    }


def page(report: dict[str, Any]) -> str:
    lines = [
        "# From ONNX to the emulated Speck: MNIST",
        "",
        f"Written by `python benchmarks/convert_mnist.py`. Commit {report['commit']}, torch {report['torch']}. "
        f"{report['images']:,} test images in rate code: a white pixel fires {CODING.max_rate_hz:g} times a second. "
        "Event-driven integers of speck2f; weights balanced on 64 training images.",
    ]
    for network in report["networks"]:
        lines += [
            "",
            f"## `{network['name']}.onnx`",
            "",
            f"{network['what']} As an ANN: {network['accuracy_ann']:.2%}. "
            f"Cores {', '.join(map(str, network['cores'].values()))}.",
            "",
            "| latency (ms) | accuracy | to the ANN (points) | SynOps per image | spikes per image |",
            "|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {point['latency_us'] / 1000:g} | {point['accuracy']:.2%} | "
            f"{100 * (point['accuracy'] - network['accuracy_ann']):+.2f} | "
            f"{point['synops']:,.0f} | {point['spikes']:,.0f} |"
            for point in network["points"]
        ]
        lines += ["", f"![accuracy over latency](convert_mnist_{network['name']}.svg)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"{DATA} is not there: nothing to measure.")
    torch.set_num_threads(1)  # the sums of the training on depend on it
    training, test = images("train10k"), images("t10k")
    cntk = nd.load(DATA / "onnx-mnist" / "mnist-cntk.onnx", max_pool="average")
    untrained = float((answers(cntk, test, input_scale=255) == test.labels).mean())
    tuned = nd.fine_tune(cntk, training, epochs=1, input_scale=255, bias=False)
    networks = [
        (
            "mnist-sinabs-avgpool",
            "Convolutions, ReLU and average pooling without bias.",
            nd.load(DATA / "onnx-mnist" / "mnist-sinabs-avgpool.onnx"),
            1.0,
        ),
        (
            "mnist-cntk",
            "Published with max pooling and biases (98.91 %). MaxPool is refused with its remedy: read as average "
            f"pooling ({untrained:.2%}), biases removed, trained on for one epoch on the 10,000 training images.",
            tuned,
            255.0,
        ),
    ]
    report = {
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip(),
        "torch": version("torch"),
        "images": len(test),
        "networks": [measure(name, what, ann, training, test, scale) for name, what, ann, scale in networks],
    }
    write_json(RESULTS / "convert_mnist.json", report)
    write_text(RESULTS / "convert_mnist.md", page(report))
    print(page(report))


if __name__ == "__main__":
    main()
