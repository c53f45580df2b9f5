"""Writes a training state as a checkpoint in the hub's layout: `python export.py STATE TOKENIZER OUT`.

The averaged weights go to fp16; the heads that ground phrases and name cells are kept as
extra tensors `grounding_head.*` and `naming_head.*`. The score calibration starts as the identity: fit it with `evaluate.py --calibrate`.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import GenerationConfig

import text
from model import BOX_SCALE, EMBED, GRID, SIZE, TinyFlorence

NMS_IOU = 0.35


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state")
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    parser.add_argument("--weights", choices=["average", "model"], default="average")
    args = parser.parse_args()
    export(args.state, args.tokenizer, Path(args.out), args.weights)


def export(state_path, tokenizer_path, out, weights="average"):
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(tokenizer_path)
    model = TinyFlorence(tokenizer)
    model.load_state_dict(torch.load(state_path)[weights])
    florence = model.florence
    florence.generation_config = GenerationConfig(
        num_beams=1, do_sample=False, max_new_tokens=96, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_bos_token_id=0, forced_eos_token_id=2,
    )
    florence.half().save_pretrained(out)
    path = out / "model.safetensors"
    tensors = load_file(path)
    head = {f"grounding_head.{k}": v.half() for k, v in model.grounding_head.state_dict().items()}
    head |= {f"naming_head.{k}": v.half() for k, v in model.vision_head.state_dict().items()}
    save_file({**tensors, **head}, path, metadata={"format": "pt"})
    path.chmod(0o644)

    config_path = out / "config.json"
    config = json.loads(config_path.read_text())
    config["synthetic"] = True
    config["grounding_head"] = {
        "embed_dim": EMBED,
        "box_scale": BOX_SCALE,
        "calibration": {"scale": 1.0, "bias": 0.0},
        "nms_iou": NMS_IOU,
        "names": {
            "kinds": text.KINDS,
            "colored": text.COLORED,
            "colors": text.COLORS,
            "nouns": sorted({it for kind in text.KINDS for it in text.SYNONYMS[kind]}),
        },
    }
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "Florence2Processor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "image_seq_length": 1 + GRID * GRID,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    size = path.stat().st_size / 1e6
    print(f"{out}: {sum(t.numel() for t in {**tensors, **head}.values()) / 1e6:.2f} M values, {size:.2f} MB")


if __name__ == "__main__":
    main()
