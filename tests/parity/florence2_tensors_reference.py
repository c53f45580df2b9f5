"""Names and shapes of the tensors of the released Florence-2 checkpoints, for tests/florence2_layouts.rs.

    python tests/parity/florence2_tensors_reference.py      # writes tests/data/florence2_tensors.json.gz

The released files are not read. transformers' `Florence2ForConditionalGeneration` is built on the meta device from the sizes
that the checkpoints' config.json give (written out below), and its parameters and buffers are listed: that is the native
layout, as `florence-community/Florence-2-{base,base-ft,large,large-ft}` store it. base and base-ft (large and large-ft)
differ in weights only. The older layout of `microsoft/Florence-2-*` is derived from it by the renaming that transformers'
own conversion script does, backwards, with a vocabulary that is not padded (51289 instead of 51328 rows) and the zero
`final_logits_bias` those files hold. Made with transformers 5.23.0.
"""

import gzip
import json
import re
from pathlib import Path

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration

OUT = Path(__file__).parent.parent / "data" / "florence2_tensors.json.gz"
SIZES = {
    "base": dict(width=128, heads=4, d_model=768, layers=6, text_heads=12, ffn=3072, positions=1024),
    "large": dict(width=256, heads=8, d_model=1024, layers=12, text_heads=16, ffn=4096, positions=4096),
}
TO_OLD = [
    (r"^model\.multi_modal_projector\.image_projection\.weight$", "image_projection"),
    (r"^model\.multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
    (r"^model\.multi_modal_projector\.", ""),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.(vision_tower\.convs\.\d+)\.conv\.", r"\1.proj."),
    (r"^model\.vision_tower\.", "vision_tower."),
    (r"\.(conv[12])\.(weight|bias)$", r".\1.fn.dw.\2"),
    (r"(spatial_block)\.norm1\.", r"\1.window_attn.norm."),
    (r"(channel_block)\.norm1\.", r"\1.channel_attn.norm."),
    (r"\.norm2\.", ".ffn.norm."),
    (r"_attn\.(qkv|proj)\.", r"_attn.fn.\1."),
    (r"_block\.ffn\.(fc[12])\.", r"_block.ffn.fn.net.\1."),
]


def config(size, vocab_size):
    stages = [1, 2, 4, 8]
    return {
        "model_type": "florence2", "image_token_id": 51289,
        "vision_config": {
            "model_type": "florence_vision", "depths": [1, 1, 9, 1], "patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2],
            "patch_padding": [3, 1, 1, 1], "patch_prenorm": [False, True, True, True], "window_size": 12,
            "embed_dim": [size["width"] * it for it in stages], "num_heads": [size["heads"] * it for it in stages],
            "num_groups": [size["heads"] * it for it in stages], "projection_dim": size["d_model"],
            "max_temporal_embeddings": 100, "max_position_embeddings": 50,
        },
        "text_config": {
            "model_type": "bart", "vocab_size": vocab_size, "d_model": size["d_model"],
            "encoder_layers": size["layers"], "decoder_layers": size["layers"],
            "encoder_attention_heads": size["text_heads"], "decoder_attention_heads": size["text_heads"],
            "encoder_ffn_dim": size["ffn"], "decoder_ffn_dim": size["ffn"], "max_position_embeddings": size["positions"],
        },
    }


def old_config(native):
    """The same in the spelling of the older checkpoints."""
    vision, text = dict(native["vision_config"]), dict(native["text_config"])
    vision["dim_embed"] = vision.pop("embed_dim")
    vision["visual_temporal_embedding"] = {"type": "COSINE", "max_temporal_embeddings": vision.pop("max_temporal_embeddings")}
    vision["image_pos_embed"] = {"type": "learned_abs_2d", "max_pos_embeddings": vision.pop("max_position_embeddings")}
    vision["image_feature_source"] = ["spatial_avg_pool", "temporal_avg_pool"]
    vision["model_type"] = "davit"
    text["model_type"] = "florence2_language"
    return {"model_type": "florence2", "projection_dim": text["d_model"], "vision_config": vision, "text_config": text}


def tensors(native):
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(Florence2Config(**native))
    tied = {"lm_head.weight", "model.language_model.encoder.embed_tokens.weight", "model.language_model.decoder.embed_tokens.weight"}
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def to_old(native_tensors):
    old = {}
    for name, shape in native_tensors.items():
        for pattern, new in TO_OLD:
            name = re.sub(pattern, new, name)
        old[name] = shape[::-1] if name == "image_projection" else shape
    return old


def main():
    checkpoints = {}
    for name, size in SIZES.items():
        native = config(size, 51328)
        checkpoints[f"native {name}, {name}-ft"] = {"config": native, "tensors": tensors(native)}
        unpadded = config(size, 51289)
        old = to_old(tensors(unpadded)) | {"language_model.final_logits_bias": [1, 51289]}
        checkpoints[f"older {name}, {name}-ft"] = {"config": old_config(unpadded), "tensors": old}
    for name, checkpoint in checkpoints.items():
        total = sum(torch.Size(shape).numel() for shape in checkpoint["tensors"].values())
        print(f"{name}: {len(checkpoint['tensors'])} tensors, {total / 1e6:.1f} million values")
    text = json.dumps({"derived_by": "tests/parity/florence2_tensors_reference.py", "checkpoints": checkpoints})
    OUT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
