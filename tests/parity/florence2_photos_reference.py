"""Real photographs through the reference image processor, for tests/parity_florence2_photos.rs.

    python tests/parity/florence2_photos_reference.py          # crops, to tests/data/parity/photos/
    python tests/parity/florence2_photos_reference.py DIR      # whole photographs, to DIR, for the ignored test:
    FLORENCE2_PHOTOS=DIR cargo test --release --no-default-features --test parity_florence2_photos -- --ignored --nocapture

The oracle is transformers' `CLIPImageProcessorPil` with the numbers of Florence-2's preprocessor_config.json. Photographs come
with the wheels of scikit-image (astronaut: NASA, public domain; chelsea, coffee: CC0; rocket: SpaceX, public domain;
motorcycle_left: Middlebury) and scikit-learn (china, flower: CC BY 2.0). Only crops of public domain and CC0 pictures are
kept in the repository. Made with transformers 5.23.0, Pillow 13.0, scikit-image 0.26.
"""

import json
import sys
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

OUT = Path(__file__).parent.parent / "data" / "parity" / "photos"
SKIMAGE, SKLEARN = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"
CROPS = {"astronaut": (130, 20, 310, 200), "chelsea": (110, 60, 290, 190), "coffee": (180, 100, 360, 220)}
PHOTOS = [SKIMAGE / it for it in ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"]]
PHOTOS += [SKLEARN / it for it in ["china.jpg", "flower.jpg"]]
CONFIG = dict(
    size={"height": 768, "width": 768}, do_resize=True, do_rescale=True, do_normalize=True, do_center_crop=False, resample=3,
    rescale_factor=1 / 255, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], image_seq_length=577,
)
SAMPLE = 9973  # every so manieth value is kept


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 1:
        images = {path.stem: Image.open(path).convert("RGB") for path in PHOTOS}
        # Taller than wide: Pillow 13 may take the passes in the other order, see preprocess.rs.
        images["chelsea_turned"] = images["chelsea"].transpose(Image.ROTATE_90)
    else:
        images = {name: Image.open(SKIMAGE / f"{name}.png").convert("RGB").crop(box) for name, box in CROPS.items()}
    (out / "preprocessor_config.json").write_text(json.dumps(CONFIG, indent=1))
    config = {key: value for key, value in CONFIG.items() if key != "image_seq_length"}
    whole, resize_only = CLIPImageProcessorPil(**config), CLIPImageProcessorPil(**config | {"do_rescale": False, "do_normalize": False})
    expected = []
    for name, image in images.items():
        image.save(out / f"{name}.png", optimize=True)
        resized = np.asarray(resize_only(image, return_tensors="np").pixel_values[0]).transpose(1, 2, 0).astype(np.uint8)
        values = np.asarray(whole(image, return_tensors="np").pixel_values[0], dtype=np.float32).transpose(1, 2, 0)
        expected.append({
            "name": name, "width": image.width, "height": image.height, "fnv1a": fnv1a(resized.tobytes()),
            "bytes": resized.reshape(-1)[::SAMPLE].tolist(), "values": [round(float(v), 7) for v in values.reshape(-1)[::SAMPLE]],
        })
    (out / "expected.json").write_text(json.dumps({"sample": SAMPLE, "images": expected}, separators=(",", ":")))
    print(f"{len(expected)} images to {out}")


if __name__ == "__main__":
    main()
