"""A Florence-2 of full size with random weights, and what transformers computes with it, for the full-size checks.

    python tests/parity/florence2_full_size.py DIR [--size base|large]     # writes about 1 (large: 3.2) GB
    FLORENCE2_FULL_SIZE=DIR cargo test --release --no-default-features --test parity_florence2_full_size -- --ignored --nocapture

The weights are random, norms, biases and positions too; the tokenizer has Florence-2's ids but made-up words. Parity and
speed do not depend on what the weights mean; accuracy does, and cannot be checked with this. Written for transformers 5.23.0,
torch 2.15.0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from florence2_reference import MEAN, STD, Tower, make_image, randomize
from florence2_tensors_reference import SIZES, config

SIDE = 768
PROMPTS = ["What does the image describe?", "Locate red cup in the image."]
N_TOKENS = 20


def make_tokenizer():
    """A few merges, filled up to BART's 50265 ids, and Florence-2's added tokens behind them."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(PROMPTS, trainer)
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    for i in range(len(vocab), 50265):
        vocab[f"filler{i}"] = i
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tags = ["<od>", "</od>", "<ocr>", "</ocr>"] + [f"<loc_{i}>" for i in range(1000)]
    tags += ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>"]
    tags += ["<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>", "</proposal>"]
    tags += ["<poly>", "</poly>", "<and>", "<image>"]
    tokenizer.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    assert tokenizer.token_to_id("<loc_0>") == 50269 and tokenizer.token_to_id("<image>") == 51289
    return tokenizer


def preprocess(image):
    resized = Image.fromarray(image).resize((SIDE, image.shape[0]), Image.BICUBIC).resize((SIDE, SIDE), Image.BICUBIC)
    values = (np.asarray(resized).astype(np.float64) / 255 - MEAN) / STD
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]


def write(out, size):
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(out / "tokenizer.json"))
    model = Florence2ForConditionalGeneration(Florence2Config(**config(SIZES[size], 51328))).eval()
    randomize(model, torch.Generator().manual_seed(20261124))
    # Logits of some 10, as trained models have.
    model.model.language_model.shared.weight.mul_(0.2)
    model.save_pretrained(out)
    (out / "generation_config.json").write_text(json.dumps(dict(
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_bos_token_id=0, forced_eos_token_id=2,
        no_repeat_ngram_size=3, num_beams=3, early_stopping=True, max_new_tokens=N_TOKENS,
    ), indent=1))
    (out / "preprocessor_config.json").write_text(json.dumps(dict(
        size={"height": SIDE, "width": SIDE}, do_resize=True, do_rescale=True, do_normalize=True, do_center_crop=False,
        resample=3, rescale_factor=1 / 255, image_mean=MEAN, image_std=STD, image_seq_length=577,
    ), indent=1))
    model.generation_config = GenerationConfig.from_pretrained(out)
    return model, tokenizer


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=Path)
    parser.add_argument("--size", choices=SIZES, default="base")
    arguments = parser.parse_args()
    model, tokenizer = write(arguments.dir, arguments.size)
    tower = Tower(model, None, tokenizer)
    decoder_ids = [2, 0, 17, 300, 50401, 50402, 55, 51100]
    tensors, cases = {}, []
    for seed, prompt in enumerate(PROMPTS):
        pixels = preprocess(make_image(640, 480, seed))
        inputs = tower.inputs(pixels, prompt)
        hooked = {}
        hook = model.model.vision_tower.register_forward_hook(lambda _m, _i, output: hooked.update(vision=output))
        out = model(**inputs, decoder_input_ids=torch.tensor([decoder_ids]))
        hook.remove()
        vision = hooked["vision"]
        vision = getattr(vision, "last_hidden_state", vision)
        tensors |= {
            f"{seed}.pixels": pixels.permute(0, 2, 3, 1).contiguous(), f"{seed}.vision": vision.permute(0, 2, 3, 1).contiguous(),
            f"{seed}.encoder": out.encoder_last_hidden_state.contiguous(), f"{seed}.logits": out.logits.contiguous(),
        }
        case = {"prompt": prompt, "seed": seed}
        for name, n_beams in [("greedy", 1), ("beams", 3)]:
            ids = model.generate(**inputs, num_beams=n_beams, early_stopping=n_beams > 1, max_new_tokens=N_TOKENS)[0].tolist()
            case[name] = ids
        cases.append(case)
        print(f"{prompt!r}: largest logit {out.logits.abs().max():.1f}, greedy {case['greedy']}")
    save_file(tensors, arguments.dir / "expected.safetensors")
    (arguments.dir / "expected.json").write_text(json.dumps({"decoder_ids": decoder_ids, "cases": cases}))


if __name__ == "__main__":
    main()
