"""Make the fixtures of tests/parity_owlv2.rs: a tiny random OWLv2 and what transformers computes with it.

    python tests/parity/owlv2_reference.py                       # writes tests/data/parity/owlv2/
    python tests/parity/owlv2_reference.py --full-size DIR       # a random checkpoint of the base size and its expectations

Made with transformers 5.23.0, torch 2.15.0, tokenizers 0.23, SciPy 1.17. Every parameter is random, norms, biases and
positions too: default initialization hides mistakes. Then
`LG_OWLV2_FULL_SIZE=DIR cargo test --release --test parity_owlv2 -- --ignored --nocapture` compares the full size.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Owlv2Config, Owlv2ForObjectDetection, PreTrainedTokenizerFast
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from florence2_reference import make_image

OUT = Path(__file__).parent.parent / "data" / "parity" / "owlv2"
TEXTS = [
    "red cup", "a photo of a Laptop", "Bowl!",
    "the small green bottle left of the plate and many more words than the tower has places for",
]


def make_tokenizer():
    """CLIP's pipeline with a small vocabulary: lower case, words end in </w>, the end token has the highest id."""
    corpus = ["a photo of a red cup", "a photo of a laptop", "the small green bottle left of the plate", "bowl", "many more words"]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(pattern=__import__("tokenizers").Regex(r"\s+"), content=" "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=620, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    # As in CLIP's vocabulary, every byte also ends words.
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    pieces = dict.fromkeys(alphabet + [a + "</w>" for a in alphabet] + [a + b for a, b in merges])
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer.model = models.BPE(vocab, merges, end_of_word_suffix="</w>")
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|startoftext|>", "<|endoftext|>")])
    start, end = tokenizer.token_to_id("<|startoftext|>"), tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", start), ("<|endoftext|>", end)]
    )
    return tokenizer


def randomize(model, generator, seed_scale=1.6):
    def normal(shape, std, mean=0.0):
        return torch.randn(shape, generator=generator) * std + mean

    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(normal(p.shape, 0.3, 1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(normal(p.shape, 0.3))
            elif name.endswith("logit_scale"):
                p.copy_(torch.tensor(2.0))
            elif "embedding" in name and "patch" not in name:
                p.copy_(normal(p.shape, 0.7))
            else:
                p.copy_(normal(p.shape, seed_scale / p[0].numel() ** 0.5))
            p.copy_(p.half().float())


def text_inputs(tokenizer, texts, length):
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length)
    fast.pad_token = tokenizer.id_to_token(0)
    return fast(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")


@torch.no_grad()
def outputs(model, processor, tokenizer, image, example, texts):
    length = model.config.text_config.max_position_embeddings
    inputs = text_inputs(tokenizer, texts, length)
    pixels = torch.from_numpy(np.stack(processor(images=[Image.fromarray(image)]).pixel_values))
    out = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, pixel_values=pixels)
    example_pixels = torch.from_numpy(np.stack(processor(images=[Image.fromarray(example)]).pixel_values))
    guided = model.image_guided_detection(pixel_values=pixels, query_pixel_values=example_pixels)
    clip = model.owlv2(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, pixel_values=pixels)
    return {
        "pixels": pixels.permute(0, 2, 3, 1),
        "text_embeds": out.text_embeds[0],
        "patch_features": out.image_embeds.flatten(1, 2),
        "class_embeds_normed": out.class_embeds,
        "boxes": out.pred_boxes,
        "objectness": out.objectness_logits,
        "logits": out.logits,
        "contrastive_logits": clip.logits_per_image,
        "guided_logits": guided.logits,
    }


def write_processor_config(out, side):
    (out / "preprocessor_config.json").write_text(json.dumps(dict(
        do_pad=True, do_resize=True, do_rescale=True, do_normalize=True, rescale_factor=1 / 255, resample=2,
        size={"height": side, "width": side}, image_processor_type="Owlv2ImageProcessor",
    ), indent=1))
    return Owlv2ImageProcessorPil(size={"height": side, "width": side})


def tiny():
    OUT.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(OUT / "tokenizer.json"), pretty=False)
    side = 48
    config = Owlv2Config(
        text_config=dict(vocab_size=tokenizer.get_vocab_size() + 3, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
                         num_attention_heads=4, max_position_embeddings=16),
        vision_config=dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=3, image_size=side,
                           patch_size=8),
        projection_dim=32,
    )
    model = Owlv2ForObjectDetection(config).eval()
    randomize(model, torch.Generator().manual_seed(20261124))
    model.save_pretrained(OUT)
    weights = load_file(OUT / "model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, OUT / "model.safetensors", {"format": "pt"})
    processor = write_processor_config(OUT, side)
    tensors, images = {}, []
    for i, (width, height) in enumerate([(64, 48), (31, 77), (200, 150), (1, 1)]):
        image, example = make_image(width, height, i), make_image(40 + i, 40, 90 + i)
        images.append([width, height, i])
        for name, tensor in outputs(model, processor, tokenizer, image, example, TEXTS).items():
            tensors[f"image{i}.{name}"] = tensor.contiguous()
    for width, height in [(640, 480), (49, 47), (48, 30), (5, 2), (333, 72), (17, 1281)]:
        image = make_image(width, height, 5)
        pixels = torch.from_numpy(np.stack(processor(images=[Image.fromarray(image)]).pixel_values))
        tensors[f"pixels.{width}x{height}"] = pixels.permute(0, 2, 3, 1).contiguous()
    save_file(tensors, OUT / "expected.safetensors")
    inputs = text_inputs(tokenizer, TEXTS, 16)
    rows = zip(*[inputs[k].tolist() for k in ("input_ids", "attention_mask")])
    ids = [[i for i, m in zip(*row) if m] for row in rows]
    (OUT / "cases.json").write_text(json.dumps({"texts": TEXTS, "ids": ids, "images": images}))
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:8d} {path.name}")


def full_size(out):
    """google/owlv2-base-patch16-ensemble's sizes: the reference's defaults at 960 pixels."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    config = Owlv2Config(vision_config=dict(image_size=960))
    model = Owlv2ForObjectDetection(config).eval()
    randomize(model, torch.Generator().manual_seed(1), 0.8)
    model.save_pretrained(out)
    processor = write_processor_config(out, 960)
    tensors = outputs(model, processor, tokenizer, make_image(640, 480, 3), make_image(200, 300, 4), TEXTS)
    save_file({f"image0.{k}": v.contiguous() for k, v in tensors.items()}, out / "expected.safetensors")
    (out / "cases.json").write_text(json.dumps({"texts": TEXTS, "ids": [], "images": [[640, 480, 3]]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full-size", type=Path)
    arguments = parser.parse_args()
    full_size(arguments.full_size) if arguments.full_size else tiny()
