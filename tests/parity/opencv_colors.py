#!/usr/bin/env python3
"""Writes tests/data/camera_encodings.json: small images in the encodings of cameras, and their rgb8 by OpenCV.

Needs opencv-python-headless. OpenCV calls a Bayer pattern by the second row's second and third pixel: BG is rggb.
"""

import json
import sys

import cv2
import numpy

BAYER = {"rggb": cv2.COLOR_BayerBG2RGB, "bggr": cv2.COLOR_BayerRG2RGB, "gbrg": cv2.COLOR_BayerGR2RGB,
         "grbg": cv2.COLOR_BayerGB2RGB}


def main():
    chance = numpy.random.default_rng(3)
    height, width = 12, 16
    images = []

    def add(encoding, data, rgb):
        images.append({"encoding": encoding, "width": width, "height": height,
                       "step": data.size * data.itemsize // height if "nv" not in encoding else width,
                       "data": data.astype(data.dtype.newbyteorder("<")).tobytes().hex(),
                       "rgb": rgb.tobytes().hex()})

    packed = chance.integers(0, 256, (height, width, 2), numpy.uint8)
    for names, code in ((("yuyv", "yuv422_yuy2"), cv2.COLOR_YUV2RGB_YUY2), (("uyvy", "yuv422"), cv2.COLOR_YUV2RGB_UYVY)):
        for name in names:
            add(name, packed, cv2.cvtColor(packed, code))
    planar = chance.integers(0, 256, (height * 3 // 2, width), numpy.uint8)
    add("nv12", planar, cv2.cvtColor(planar, cv2.COLOR_YUV2RGB_NV12))
    add("nv21", planar, cv2.cvtColor(planar, cv2.COLOR_YUV2RGB_NV21))
    for name, code in BAYER.items():
        mosaic = chance.integers(0, 256, (height, width), numpy.uint8)
        add(f"bayer_{name}8", mosaic, cv2.cvtColor(mosaic, code))
        deep = chance.integers(0, 65536, (height, width), numpy.uint16)
        add(f"bayer_{name}16", deep, cv2.convertScaleAbs(cv2.cvtColor(deep, code), alpha=255 / 65535))
    for name, code in (("rgb16", None), ("bgr16", cv2.COLOR_BGR2RGB), ("rgba16", cv2.COLOR_RGBA2RGB),
                       ("bgra16", cv2.COLOR_BGRA2RGB)):
        deep = chance.integers(0, 65536, (height, width, 4 if "a" in name else 3), numpy.uint16)
        rgb = deep if code is None else cv2.cvtColor(deep, code)
        add(name, deep, cv2.convertScaleAbs(rgb, alpha=255 / 65535))
    json.dump({"opencv": cv2.__version__, "images": images}, sys.stdout)


if __name__ == "__main__":
    main()
