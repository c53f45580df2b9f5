"""An exported checkpoint at work in transformers: what the Rust model is compared with."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import Florence2ForConditionalGeneration

AGREEING_IOU = 0.6  # cells whose boxes overlap the best one's by more have a say in it


class Checkpoint:
    """`images` are u8 [B, side, side, 3]; boxes are (x0, y0, x1, y1) in [0, 1]."""

    def __init__(self, directory):
        directory = Path(directory)
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.florence = Florence2ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
        self.florence.set_attn_implementation("eager")
        self.config = json.loads((directory / "config.json").read_text())["grounding_head"]
        tensors = load_file(directory / "model.safetensors")
        self.head = {k.removeprefix("grounding_head."): v.float() for k, v in tensors.items() if k.startswith("grounding_head.")}
        pixels = json.loads((directory / "preprocessor_config.json").read_text())
        self.mean, self.std = (torch.tensor(pixels[k]) for k in ("image_mean", "image_std"))
        self.image_tokens = pixels["image_seq_length"]
        self.phrases = {}
        self.image_id = self.tokenizer.token_to_id("<image>")

    def pixels(self, images):
        x = torch.as_tensor(images).float() / 255
        return ((x - self.mean) / self.std).permute(0, 3, 1, 2)

    @torch.no_grad()
    def look(self, images):
        """The vision tower's map [B, C, grid, grid]."""
        return self.florence.model.vision_tower(self.pixels(images)).last_hidden_state

    @torch.no_grad()
    def boxes(self, vision_map):
        """[B, grid^2, 4]"""
        w, h = self.head, self._cells(vision_map)
        raw = F.linear(F.gelu(F.linear(h, w["box.0.weight"], w["box.0.bias"])), w["box.2.weight"], w["box.2.bias"])
        reach = F.softplus(raw) * self.config["box_scale"]
        side = vision_map.shape[-1]
        center = (torch.arange(side) + 0.5) / side
        y, x = (it.flatten() for it in torch.meshgrid(center, center, indexing="ij"))
        boxes = torch.stack([x - reach[..., 0], y - reach[..., 1], x + reach[..., 2], y + reach[..., 3]], -1)
        return boxes.clamp(0, 1)

    @torch.no_grad()
    def logits(self, vision_map, phrases):
        """[B, phrases, grid^2]"""
        w, h = self.head, self._cells(vision_map)
        cells = F.linear(F.gelu(F.linear(h, w["cell.0.weight"], w["cell.0.bias"])), w["cell.2.weight"], w["cell.2.bias"])
        bias = F.linear(h, w["cell_bias.weight"], w["cell_bias.bias"])[..., 0]
        vectors, phrase_bias = zip(*(self._phrase(it) for it in phrases))
        cosine = torch.einsum("bne,pe->bpn", F.normalize(cells, dim=-1), torch.stack(vectors))
        return w["log_scale"].exp() * cosine + bias[:, None] + torch.stack(phrase_bias)[None, :, None]

    def _cells(self, vision_map):
        x = vision_map.flatten(2).transpose(1, 2)
        return F.layer_norm(x, x.shape[-1:], self.head["norm.weight"], self.head["norm.bias"])

    def _phrase(self, phrase):
        if phrase not in self.phrases:
            w, ids = self.head, torch.tensor([self.tokenizer.encode(phrase).ids])
            mean = self.florence.model.language_model.encoder(input_ids=ids).last_hidden_state[0].mean(0)
            vector = F.normalize(F.linear(mean, w["phrase.weight"], w["phrase.bias"]), dim=0)
            self.phrases[phrase] = vector, F.linear(mean, w["phrase_bias.weight"], w["phrase_bias.bias"])[0]
        return self.phrases[phrase]

    def score(self, logit):
        return torch.sigmoid(self.config["calibration"]["scale"] * logit + self.config["calibration"]["bias"])

    @torch.no_grad()
    def generate(self, image, prompt):
        """Greedy text for one image, through transformers' own `generate`."""
        ids = [self.image_id] * self.image_tokens + self.tokenizer.encode(prompt).ids
        out = self.florence.generate(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            pixel_values=self.pixels(image[None]),
        )
        return self.tokenizer.decode(out[0].tolist(), skip_special_tokens=True).strip()


def keep_apart(logits, scores, boxes, max_iou, most):
    """Greedy non-maximum suppression: (logit, box) by falling logit; a box is the mean, weighted by score, of those that agree with it."""
    low, high = torch.max(boxes[:, None, :2], boxes[None, :, :2]), torch.min(boxes[:, None, 2:], boxes[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
    overlaps = inter / (area[:, None] + area[None] - inter).clamp(min=1e-12)
    kept = []
    for i in logits.argsort(descending=True).tolist():
        if len(kept) < most and (overlaps[i, kept] <= max_iou).all():
            kept.append(i)
    weights = (overlaps[kept] >= AGREEING_IOU) * scores
    mean = weights @ boxes / weights.sum(1, keepdim=True)
    return list(zip(logits[kept].tolist(), mean.tolist()))


def overlap(a, b):
    """Intersection over union."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = lambda box: max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
    return w * h / (area(a) + area(b) - w * h)
