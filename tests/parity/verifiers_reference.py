"""Make the fixtures of tests/parity_verifiers.rs: tiny random CLIP and SigLIP models and what transformers computes with them.

    python tests/parity/verifiers_reference.py        # writes tests/data/parity/{clip,siglip}/

Made with transformers 5.23.0, torch 2.15.0, tokenizers 0.23, Pillow 13.0. Every parameter is random.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from florence2_reference import make_image
from owlv2_reference import make_tokenizer, randomize, text_inputs

DATA = Path(__file__).parent.parent / "data" / "parity"
TEXTS = [
    "red cup", "a photo of a laptop", "bowl",
    "the small green bottle left of the plate and many more words than the tower has places for",
]
SIDE = 32
SIZES = [(64, 48), (33, 32), (200, 150), (57, 9)]  # landscape: Pillow 13 resizes some portraits in another order
TEXT = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=16)
VISION = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3, image_size=SIDE, patch_size=8)


def siglip_tokenizer():
    """T5's pipeline with a small vocabulary: pieces that begin with an underscore, </s> at the end and as padding."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    corpus = ["a photo of a red cup", "a photo of a laptop", "the small green bottle left of the plate", "bowl many more words than"]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(corpus * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_padding(pad_id=1, pad_token="</s>", length=16)
    return tokenizer


@torch.no_grad()
def write(name, model, tokenizer, processor, processor_config, inputs):
    out = DATA / name
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    randomize(model, torch.Generator().manual_seed(len(name)))
    model.save_pretrained(out)
    weights = load_file(out / "model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, out / "model.safetensors", {"format": "pt"})
    (out / "preprocessor_config.json").write_text(json.dumps(processor_config, indent=1))
    cases = {"texts": TEXTS, "images": []}
    for i, (width, height) in enumerate(SIZES):
        pixels = processor(images=[Image.fromarray(make_image(width, height, i))]).pixel_values
        result = model(**inputs, pixel_values=torch.from_numpy(np.stack(pixels)))
        cosines = result.image_embeds @ result.text_embeds.T
        cases["images"].append({
            "size": [width, height], "seed": i, "cosines": cosines[0].tolist(), "logits": result.logits_per_image[0].tolist(),
        })
    (out / "cases.json").write_text(json.dumps(cases))
    print(name, {p.name: p.stat().st_size for p in sorted(out.iterdir())}, cases["images"][0])


def main():
    tokenizer = make_tokenizer()
    end = tokenizer.token_to_id("<|endoftext|>")
    clip = CLIPModel(CLIPConfig(
        text_config=TEXT | dict(vocab_size=tokenizer.get_vocab_size(), eos_token_id=end, bos_token_id=end - 1, pad_token_id=0),
        vision_config=VISION, projection_dim=24,
    )).eval()
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    config = dict(size=SIDE, crop_size=SIDE, do_center_crop=True, do_normalize=True, do_resize=True, resample=3, image_mean=mean,
                  image_std=std)
    inputs = text_inputs(tokenizer, TEXTS, 16)
    inputs = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    write("clip", clip, tokenizer, processor, config, inputs)

    tokenizer = siglip_tokenizer()
    text = TEXT | dict(vocab_size=tokenizer.get_vocab_size(), hidden_size=48)
    siglip = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).eval()
    config = dict(size={"height": SIDE, "width": SIDE}, do_normalize=True, do_resize=True, do_rescale=True, resample=3,
                  rescale_factor=1 / 255, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    tokenizer.enable_truncation(16)
    inputs = {"input_ids": torch.tensor([row.ids for row in tokenizer.encode_batch(TEXTS)])}
    tokenizer.no_truncation()
    write("siglip", siglip, tokenizer, SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}), config, inputs)


if __name__ == "__main__":
    main()
