#!/usr/bin/env python3
"""What the node adds to the model: image callback to model input, and result to published messages.

    source build/env.sh; export LG_BIN_DIR=target/release; python3 tests/benches/node_overhead.py [SECONDS]

The node gets a simulated camera at 30 Hz and boxes from a file instead of a model (`model: given:FILE`), and answers a standing
instruction on every image. "to model" is the result's own `wait` (callback to taken) and `convert`; "pipeline" is everything
from there to the result (with the lifting, without a model); "publish" comes from /diagnostics. All in milliseconds.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "ros"))
from diagnostic_msgs.msg import DiagnosticArray
from language_grounding.msg import GroundingResult
from std_msgs.msg import String

from conftest import NODE, SCENE, World


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    print(f"{'':12}{'results/s':>10}{'to model p50':>14}{'p99':>8}{'pipeline p50':>14}{'p99':>8}{'publish p50':>13}{'p99':>8}")
    for domain, (width, height) in enumerate([(640, 480), (1920, 1080)], 70):
        world = World(domain)
        try:
            measure(world, width, height, seconds)
        finally:
            world.close()


def measure(world, width, height, seconds):
    world.start_camera(SCENE["seed"], "--width", width, "--height", height, "--rate", 30)
    world.start_node(target_frame="world", caption_targets=False)
    results = world.listen(GroundingResult, f"{NODE}/result", 100)
    health = world.listen(DiagnosticArray, "/diagnostics")
    world.publisher(String, "instruction").publish(String(data=f"pick up the {SCENE['present']}"))
    world.spin(3.0)  # to get warm
    results.clear()
    world.spin(seconds)
    times = [{it.name: it.value for it in result.latency_ms} for result in results if result.latency_ms]
    to_model = [it["wait"] + it["convert"] for it in times]
    pipeline = [it["total"] - it["convert"] for it in times]
    published = next({it.key: it.value for it in status.values}
                     for status in health[-1].status if status.name.endswith("results"))
    print(f"{width}x{height:<7}{len(times) / seconds:>9.1f}{quantiles(to_model, 14)}{quantiles(pipeline, 14)}"
          f"{float(published['publish p50 (ms)']):>13.1f}{float(published['publish p99 (ms)']):>8.1f}")


def quantiles(values, width):
    return f"{statistics.median(values):>{width}.1f}{statistics.quantiles(values, n=100)[98]:>8.1f}"


if __name__ == "__main__":
    main()
