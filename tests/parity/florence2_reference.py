"""Make the fixtures of tests/parity_florence2.rs: a tiny random Florence-2 and what transformers computes with it.

    python tests/parity/florence2_reference.py        # writes tests/data/parity/florence2/

Made with transformers 5.23.0, torch 2.15.0, tokenizers 0.23, Pillow 13.0. Every parameter is random, norms, biases and
positions too: default initialization (ones, zeros, tiny positions) hides mistakes. The images are a formula that the
Rust test repeats, so none are stored.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Florence2Config, Florence2ForConditionalGeneration
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor, Florence2Processor

OUT = Path(__file__).parent.parent / "data" / "parity" / "florence2"
SIDE = 72  # model input, pixels: windows of 4 need padding in every stage
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
EMBED, BOX_SCALE, CALIBRATION = 24, 0.1, (1.3, -0.4)


def make_image(width, height, seed):
    """RGB image [height, width, 3] u8 by integer arithmetic; the Rust test has the same."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    channels = []
    for c in range(3):
        wave = (x * (3 + seed % 5 + c) + y * (2 + seed % 7)) // 2
        blob = (x * x + y * y * (1 + c) + seed * 97) // (11 + 5 * c)
        noise = ((x * 73856093) ^ (y * 19349663) ^ ((seed + c) * 83492791)) % 41
        channels.append((wave + blob % 120 + noise) % 256)
    return np.stack(channels, -1).astype(np.uint8)


def resize(image):
    """Pillow's bicubic resize, the horizontal pass first.

    One call would do the same up to Pillow 12; Pillow 13 runs the vertical pass first where it finds that cheaper (some
    portrait images), and as each pass rounds to 8 bits, that changes values by 1 or 2."""
    narrow = Image.fromarray(image).resize((SIDE, image.shape[0]), Image.BICUBIC)
    return np.asarray(narrow.resize((SIDE, SIDE), Image.BICUBIC)).copy()


def preprocess(image):
    """Resize, then normalization; [1, 3, SIDE, SIDE]."""
    resized = resize(image)
    values = (resized.astype(np.float64) / 255 - MEAN) / STD
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]


def make_tokenizer():
    corpus = [
        "What does the image describe?", "What does the region describe?", "Locate the red cup in the image.",
        "a red cup left of a blue bowl on the table", "Locate the phrases in the caption: a green bottle",
    ]
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tags = ["<od>", "</od>", "<ocr>", "</ocr>"] + [f"<loc_{i}>" for i in range(1000)]
    tags += ["<cap>", "</cap>", "<sep>", "<poly>", "</poly>", "<and>", "<image>"]
    tokenizer.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    return tokenizer


def randomize(model, generator):
    def normal(shape, std, mean=0.0):
        return torch.randn(shape, generator=generator) * std + mean

    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(normal(p.shape, 0.3, 1.0 if name.endswith("weight") else 0.0))
            elif name == "log_scale":
                p.copy_(normal(p.shape, 0.3, 1.0))
            elif name.endswith("bias"):
                p.copy_(normal(p.shape, 0.3))
            elif "embed_positions" in name or "position_embed" in name:
                p.copy_(normal(p.shape, 0.7))
            elif "shared" in name or "lm_head" in name:
                p.copy_(normal(p.shape, 1.0))
            else:
                fan_in = p[0].numel()
                p.copy_(normal(p.shape, 1.6 / fan_in**0.5))


class GroundingHead(torch.nn.Module):
    """Ours, not transformers': see training/model.py."""

    def __init__(self, n_channels, d_model):
        super().__init__()
        self.norm = torch.nn.LayerNorm(n_channels)
        self.cell = torch.nn.Sequential(
            torch.nn.Linear(n_channels, 2 * n_channels), torch.nn.GELU(), torch.nn.Linear(2 * n_channels, EMBED)
        )
        self.cell_bias = torch.nn.Linear(n_channels, 1)
        self.box = torch.nn.Sequential(torch.nn.Linear(n_channels, n_channels), torch.nn.GELU(), torch.nn.Linear(n_channels, 4))
        self.phrase = torch.nn.Linear(d_model, EMBED)
        self.phrase_bias = torch.nn.Linear(d_model, 1)
        self.log_scale = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, vision_map, phrase_states):
        h = self.norm(vision_map.flatten(2).transpose(1, 2))
        mean = phrase_states.mean(1)
        cells, phrase = (torch.nn.functional.normalize(it, dim=-1) for it in (self.cell(h), self.phrase(mean)))
        cosine = (cells * phrase[:, None]).sum(-1)
        return self.log_scale.exp() * cosine + self.cell_bias(h)[..., 0] + self.phrase_bias(mean), self.box(h)[0]


def nhwc(x):
    return x.permute(0, 2, 3, 1).contiguous()


class Tower:
    """Runs the pieces of a checkpoint and keeps every intermediate tensor."""

    def __init__(self, model, head, tokenizer):
        self.model, self.head, self.tokenizer = model, head, tokenizer
        self.saved = {}

    def hook(self, module, name, to_map=False):
        def save(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            self.saved[name] = nhwc(output) if to_map else output.contiguous()

        return module.register_forward_hook(save)

    def trace(self, pixels, prompt, decoder_ids):
        m, hooks = self.model.model, []
        for s, conv in enumerate(m.vision_tower.convs):
            hooks.append(self.hook(conv, f"vision.convs.{s}", True))
            for b, block in enumerate(m.vision_tower.blocks[s]):
                hooks.append(self.hook(block.spatial_block, f"vision.blocks.{s}.{b}.spatial_block", True))
                hooks.append(self.hook(block.channel_block, f"vision.blocks.{s}.{b}.channel_block", True))
        hooks.append(self.hook(m.multi_modal_projector, "projector"))
        hooks.append(self.hook(m.language_model.encoder.layernorm_embedding, "encoder.start"))
        for i, layer in enumerate(m.language_model.encoder.layers):
            hooks.append(self.hook(layer, f"encoder.layers.{i}"))
        for i, layer in enumerate(m.language_model.decoder.layers):
            hooks.append(self.hook(layer, f"decoder.layers.{i}"))
        self.saved = {"pixels": nhwc(pixels)}
        out = self.model(**self.inputs(pixels, prompt), decoder_input_ids=torch.tensor([decoder_ids]))
        for hook in hooks:
            hook.remove()
        ids = torch.tensor([self.tokenizer.encode("<s>" + prompt + "</s>", add_special_tokens=False).ids])
        states = m.language_model.encoder(input_ids=ids).last_hidden_state
        logits, distances = self.head(m.vision_tower(pixels).last_hidden_state, states)
        return self.saved | {"logits": out.logits, "dense.logits": logits, "dense.distances": distances}

    def cells(self, pixels):
        return self.model.get_image_features(pixels).pooler_output.shape[1] - 1

    def inputs(self, pixels, prompt):
        n = 1 + self.cells(pixels)
        text = "<image>" * n + "<s>" + prompt + "</s>"
        ids = torch.tensor([self.tokenizer.encode(text, add_special_tokens=False).ids])
        return {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}

    def generate(self, pixels, prompt, **options):
        out = self.model.generate(
            **self.inputs(pixels, prompt), return_dict_in_generate=True, output_logits=True, output_scores=True, **options
        )
        return out


def random_answers(rng):
    pieces = ["cup", "red cup", " a bowl", "é", "\n", " ", "<od>", "</od>", "<sep>", "<poly>", "</poly>", "<s>", "</s>",
              "<pad>", "<and>", "x < y", ">"]
    for _ in range(240):
        text = ""
        for _ in range(rng.randint(1, 9)):
            kind = rng.random()
            if kind < 0.5:
                n = rng.choice([1, 2, 3, 4, 4, 4, 5, 8, 8, 9])
                text += "".join(f"<loc_{rng.randint(0, 999)}>" for _ in range(n))
            elif kind < 0.8:
                text += rng.choice(pieces[:3])
            else:
                text += rng.choice(pieces)
        yield text


@torch.no_grad()
def main():
    OUT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20261123)
    tokenizer = make_tokenizer()
    tokenizer.save(str(OUT / "tokenizer.json"), pretty=False)
    n_ids = tokenizer.get_vocab_size()
    config = Florence2Config(
        vision_config=dict(
            depths=[1, 1, 2, 1], embed_dim=[8, 16, 24, 40], num_heads=[1, 2, 3, 4], num_groups=[2, 2, 3, 5],
            patch_stride=[4, 2, 2, 1], window_size=4, projection_dim=32, max_position_embeddings=12, max_temporal_embeddings=6,
        ),
        text_config=dict(
            model_type="bart", d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=64,
            encoder_attention_heads=4, decoder_attention_heads=2, vocab_size=-(-n_ids // 8) * 8 + 8, max_position_embeddings=96,
            bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
        ),
        image_token_id=tokenizer.token_to_id("<image>"),
    )
    model = Florence2ForConditionalGeneration(config).eval()
    head = GroundingHead(40, 32).eval()
    randomize(model, generator)
    randomize(head, generator)
    # Rounded to f16 once, so that the f16 file and the f32 file hold the same numbers and share one expectation.
    for module in (model, head):
        for p in module.parameters():
            p.copy_(p.half().float())
    buffer = model.model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed
    buffer.copy_(buffer.half().float())

    model.save_pretrained(OUT)
    weights = load_file(OUT / "model.safetensors")
    weights |= {f"grounding_head.{k}": v.contiguous() for k, v in head.state_dict().items()}
    save_file({k: v.half() for k, v in weights.items()}, OUT / "model.safetensors", {"format": "pt"})
    config_json = json.loads((OUT / "config.json").read_text())
    config_json["grounding_head"] = {
        "embed_dim": EMBED, "box_scale": BOX_SCALE, "calibration": {"scale": CALIBRATION[0], "bias": CALIBRATION[1]}, "nms_iou": 0.5,
    }
    config_json["synthetic"] = True
    (OUT / "config.json").write_text(json.dumps(config_json, indent=1))
    options = dict(
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_bos_token_id=0,
        forced_eos_token_id=2, no_repeat_ngram_size=3, num_beams=1, max_new_tokens=24,
    )
    (OUT / "generation_config.json").write_text(json.dumps(options, indent=1))
    (OUT / "preprocessor_config.json").write_text(json.dumps(dict(
        size={"height": SIDE, "width": SIDE}, do_resize=True, do_rescale=True, do_normalize=True, do_center_crop=False,
        resample=3, rescale_factor=1 / 255, image_mean=MEAN, image_std=STD, image_seq_length=26,
    ), indent=1))

    tower = Tower(model, head, tokenizer)
    prompts = [
        "What does the image describe?", "Locate red cup in the image.", "Locate a green bottle left of the bowl in the image.",
        "Locate ball in the image.",
    ]
    decoder_ids = [2, 0, 17, 300, 401, 402, 55, 1100]
    tensors = {}
    # Network: two images one after the other, neither square nor a multiple of the windows.
    for i, (height, width) in enumerate([(44, 104), (72, 72)]):
        pixels = torch.randn((1, 3, height, width), generator=generator)
        for j, prompt in enumerate(prompts):
            saved = tower.trace(pixels, prompt, decoder_ids)
            if j > 0:  # only what depends on the prompt
                saved = {k: saved[k] for k in ("encoder.layers.1", "dense.logits", "dense.distances", "logits")}
            tensors |= {f"image{i}.prompt{j}.{k}": v.contiguous() for k, v in saved.items()}
    # Preprocessing: Pillow's own bytes.
    sizes = [(640, 480), (73, 71), (72, 300), (1, 1), (5, 2), (333, 72), (144, 36), (1281, 17), (40, 150)]
    for width, height in sizes:
        tensors[f"resized.{width}x{height}"] = torch.from_numpy(resize(make_image(width, height, 5)))
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / "expected.safetensors")

    # Decoding, from image bytes to token ids: greedy and three beams.
    sentences = prompts + ["What does the region <loc_10><loc_200><loc_500><loc_999> describe?"]
    decoded = []
    for seed in range(20):
        width, height = 40 + 13 * seed, 150 - 7 * seed
        pixels = preprocess(make_image(width, height, seed))
        for prompt in sentences:
            case = {"width": width, "height": height, "seed": seed, "prompt": prompt}
            for name, extra in [
                ("greedy", {}), ("greedy_free", dict(no_repeat_ngram_size=0, forced_bos_token_id=None)),
                ("beams", dict(num_beams=3, early_stopping=True)),
            ]:
                out = tower.generate(pixels, prompt, **(options | extra))
                ids = out.sequences[0].tolist()
                case[name] = ids
                if name == "greedy":
                    steps = [torch.log_softmax(step[0], -1)[i].item() for step, i in zip(out.logits, ids[1:])]
                    case["greedy_log_probs"] = [round(step, 5) for step in steps]
                if name == "beams":
                    while case["beams"][-1] == 1:  # padding after the end
                        case["beams"].pop()
                    case["beams_score"] = round(out.sequences_scores[0].item(), 5)
            decoded.append(case)

    # Answers as the reference's processor reads them.
    tasks = ["<OD>", "<REGION_PROPOSAL>", "<CAPTION_TO_PHRASE_GROUNDING>", "<OPEN_VOCABULARY_DETECTION>",
             "<REFERRING_EXPRESSION_SEGMENTATION>", "<OCR_WITH_REGION>", "<CAPTION>"]
    kinds = ["ocr", "phrase_grounding", "pure_text", "description_with_bboxes", "polygons", "bboxes",
             "description_with_bboxes_or_polygons"]

    class Special:
        all_special_tokens = ("<s>", "</s>", "<pad>")

    processor = Florence2Processor.__new__(Florence2Processor)
    processor.post_processor = Florence2PostProcessor({kind: {} for kind in kinds}, Special())
    processor.tasks_answer_post_processing_type = {
        "<OD>": "description_with_bboxes", "<REGION_PROPOSAL>": "bboxes", "<CAPTION_TO_PHRASE_GROUNDING>": "phrase_grounding",
        "<OPEN_VOCABULARY_DETECTION>": "description_with_bboxes_or_polygons", "<OCR_WITH_REGION>": "ocr",
        "<REFERRING_EXPRESSION_SEGMENTATION>": "polygons", "<CAPTION>": "pure_text",
    }
    answers = []
    for i, text in enumerate(random_answers(random.Random(7))):
        task = tasks[i % len(tasks)]
        parsed = processor.post_process_generation(text=text, task=task, image_size=(640, 480))[task]
        answers.append({"task": task, "text": text, "parsed": parsed})

    tokenized = [{"prompt": p, "ids": tokenizer.encode("<s>" + p + "</s>", add_special_tokens=False).ids} for p in sentences]
    cases = {"decoder_ids": decoder_ids, "prompts": prompts, "resized": sizes, "decoded": decoded, "answers": answers,
             "tokenized": tokenized}
    (OUT / "cases.json").write_text(json.dumps(cases, separators=(",", ":")))
    distinct = len({tuple(case["greedy"]) for case in decoded})
    print(f"{len(decoded)} decoded, {distinct} distinct greedy answers, "
          f"{sum(c['greedy'] != c['beams'] for c in decoded)} where beams differ")
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:8d} {path.name}")


if __name__ == "__main__":
    main()
