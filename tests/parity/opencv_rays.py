#!/usr/bin/env python3
"""Writes tests/data/camera_rays.json: rays through pixels of distorted cameras, by OpenCV (pip install opencv-python-headless).

OpenCV inverts its models by iteration too; so the rays are chosen and OpenCV only projects them, which is exact.
"""

import json
import random
import sys

import cv2
import numpy

CAMERAS = [
    ("plumb_bob", [-0.28, 0.07, 0.0002, -0.0011, 0.01], 600.0),
    ("plumb_bob", [0.12, -0.25, 0.001, 0.0005, 0.08], 615.0),
    ("plumb_bob", [0.05, -0.1, 0.0003, -0.0002], 700.0),
    ("rational_polynomial", [0.55, -2.7, 0.0009, -0.0002, 1.5, 0.42, -2.5, 1.45], 612.0),
    ("rational_polynomial", [8.2, 4.1, -0.0001, 0.0003, 0.21, 8.5, 6.6, 1.12], 504.0),
    ("rational_polynomial", [0.55, -2.7, 0.0009, -0.0002, 1.5, 0.42, -2.5, 1.45, 0.002, -0.0007, -0.003, 0.001], 612.0),
    ("rational_polynomial", [-0.2, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.004, -0.008, 0.002, 0.04, -0.06], 640.0),
    ("rational_polynomial", [8.2, 4.1, -0.0001, 0.0003, 0.21, 8.5, 6.6, 1.12, 0.0, 0.0, 0.0, 0.0, -0.02, 0.09], 504.0),
    ("rational_polynomial", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.05], 600.0),
    ("equidistant", [-0.013, 0.021, -0.018, 0.004], 285.0),
    ("equidistant", [0.08, -0.03, 0.01, -0.002], 250.0),
]


def main():
    chance = random.Random(1)
    cameras = []
    for model, d, focal in CAMERAS:
        k = [focal, 0.0, 321.7, 0.0, focal * 1.003, 238.4, 0.0, 0.0, 1.0]
        matrix = numpy.array(k).reshape(3, 3)
        reach = 1.1 if model == "equidistant" else 0.62
        rays = [[chance.uniform(-reach, reach), chance.uniform(-0.75 * reach, 0.75 * reach), 1.0] for _ in range(60)]
        rays.append([0.0, 0.0, 1.0])
        points = numpy.array(rays).reshape(-1, 1, 3)
        zero = numpy.zeros(3)
        if model == "equidistant":
            pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, matrix, numpy.array(d))
        else:
            pixels, _ = cv2.projectPoints(points, zero, zero, matrix, numpy.array(d))
        cameras.append({"model": model, "d": d, "k": k, "rays": rays, "pixels": pixels.reshape(-1, 2).tolist()})
    json.dump({"opencv": cv2.__version__, "cameras": cameras}, sys.stdout)


if __name__ == "__main__":
    main()
