"""Trains the shipped checkpoint: `python train.py --data DIR[=SHARE] [DIR..] --out DIR [--validation DIR ..] [--init FOLDER]`.

Everything learns together: the dense head scores every cell for the phrases of the whole batch, heads that exist only while
training name kind, color and box of each cell, and the decoder learns texts from features that it does not change.
State is written every three minutes with optimizer and step, so the same command goes on where a stopped run was; it sees shards
that were added. `--init` takes the averaged weights of any state file, or an exported checkpoint's folder. It runs until it is
stopped; with `--until STEP` the learning rate falls to nothing over the last quarter of all steps. While the file `--pause` exists it waits.

The curve to watch is `curve.jsonl`: every `--every` steps the averaged weights answer a fixed set of questions about the validation
scenes, whose rooms, models, textures and words are not trained on (leave_out.py).
"""

import argparse
import itertools
import json
import math
import os
import random
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

import leave_out
import text
import tokenizer as bpe
from data import IGNORE, INPUT, Scenes, cells_of, cropped, flipped, mask_window, window
from model import GRID, TinyFlorence, pad

WEIGHTS = dict(v_kind=2.0, v_color=0.5, focal=1.0, box=1.0, text=0.5, absent=0.4, present=0.2, elsewhere=0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, nargs="+", help="folders of shards, each with how often it is drawn from")
    parser.add_argument("--validation", nargs="*", default=[], help="folders of shards for the curve")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--init", help="state to take weights from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=16, help="per step")
    parser.add_argument("--phrases", type=int, default=3, help="per image that name something, and one more that do not")
    parser.add_argument("--texts", type=float, default=0.06, help="decoder queries per image")
    parser.add_argument("--only", choices=["decoder"], help="teach the decoder alone")
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--until", type=int, help="last step")
    parser.add_argument("--every", type=int, default=250, help="steps from one point of the curve to the next")
    parser.add_argument("--pause", type=Path, help="a file that makes the training wait while it exists")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "tokenizer.json"
    if not path.exists() and args.init and Path(args.init, "tokenizer.json").exists():
        path.write_bytes(Path(args.init, "tokenizer.json").read_bytes())
    if not path.exists():
        scenes = Mix(args.data, limit=1000)
        rng = random.Random(1)
        bpe.train(text.corpus(rng, [scenes.draw(rng)[1] for _ in range(1000)], 6000)).save(str(path))
    run(args)


def run(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    words = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    words.no_padding()
    model = TinyFlorence(words)
    path, step, seconds = args.out / "state.pt", 0, 0.0
    if args.init and not path.exists():
        load(model, weights_of(args.init))
    model = model.to(args.device, memory_format=torch.channels_last)
    parameters = [p for n, p in model.named_parameters() if args.only is None or "decoder" in n]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, weight_decay=0.03, betas=(0.9, 0.98))
    average = {k: v.clone() for k, v in model.state_dict().items()}
    if path.exists():
        state = torch.load(path, map_location=args.device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, seconds = state["average"], state["step"], state["seconds"]
    scenes, rng = Mix(args.data), random.Random(f"{args.seed}-{step}")
    questions = leave_out.curve_questions(args.validation) if args.validation else []
    saved = reloaded = time.monotonic()
    shown, begun = {}, step
    while True:
        over = args.until is not None and step >= args.until
        if step > begun and (over or time.monotonic() - saved > 180):
            saved = time.monotonic()
            save(path, dict(model=model.state_dict(), average=average, optimizer=optimizer.state_dict(), step=step, seconds=seconds))
        if questions and step % args.every == 0 and (step > begun or step == 0):
            figures = leave_out.curve(averaged(model, average, words), questions)
            note(args.out / "curve.jsonl", dict(step=step, images=step * args.images, hours=round(seconds / 3600, 2), **figures))
        if over:
            break
        while args.pause and args.pause.exists():
            time.sleep(1)
        if time.monotonic() - reloaded > 600:
            scenes, reloaded = Mix(args.data), time.monotonic()  # shards may still be coming
        started = time.process_time()
        rate = args.rate * min(1.0, (step + 1) / 300)
        if args.until is not None:
            rate *= min(1.0, 4 * (args.until - step) / args.until + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(args.device, torch.bfloat16, enabled=is_bf16_fast(args.device)):
            losses = batch_losses(model, scenes, rng, args)
            loss = sum(losses[name] * weight for name, weight in WEIGHTS.items() if name in losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if bool(torch.isfinite(norm)):
            optimizer.step()
        step += 1
        decay = min(0.998, step / (step + 20))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay) if value.is_floating_point() else None
        seconds += time.process_time() - started
        for name, value in losses.items():
            value = float(value.detach())
            shown[name] = 0.97 * shown.get(name, value) + 0.03 * value
        if step % 25 == 0:
            note(args.out / "log.jsonl", dict(step=step, cpu_seconds=round(seconds), scenes=len(scenes), rate=round(rate, 6),
                                              **{k: round(v, 4) for k, v in shown.items()}))


def averaged(model, average, words):
    """The network with the averaged weights, for answers alone."""
    other = TinyFlorence(words).to(next(model.parameters()).device).eval()
    other.load_state_dict(average)
    return other


def note(path, row):
    with open(path, "a") as log:
        log.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def is_bf16_fast(device):
    """A CPU without bf16 instructions takes ten times as long with it as without."""
    return device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)


class Mix:
    """Folders of scenes, each drawn from with its share; within a folder, scenes with rare kinds more often than others."""

    def __init__(self, folders, limit=None):
        named = [it.partition("=") for it in folders]
        self.parts = [(Scenes(path, limit), float(share or 1)) for path, _, share in named]
        self.parts = [it for it in self.parts if len(it[0])]
        self.chances = [list(itertools.accumulate(rarities(scenes.things))) for scenes, _ in self.parts]

    def __len__(self):
        return sum(len(scenes) for scenes, _ in self.parts)

    def draw(self, rng):
        """An image, its things, its mask and the kinds that its folder has; half of the time a part of it, as a second look sees it."""
        part = rng.choices(range(len(self.parts)), [it[1] for it in self.parts])[0]
        scenes = self.parts[part][0]
        i = rng.choices(range(len(scenes)), cum_weights=self.chances[part])[0]
        picture, things, mask = scenes.picture(i), scenes.things[i], scenes.mask(i)
        box = (0.0, 0.0, 1.0, 1.0)
        if rng.random() < 0.55:
            part = part_of(rng, things, picture.size)
            its = cropped(things, part)
            if any(it["eligible"] for it in its):
                box, things = part, its
        return window(picture, box), things, mask_window(mask, box, 8 * GRID), scenes.kinds


def part_of(rng, things, size):
    """A window 1.05 to 2.6 times smaller, from the picture's own shape to square pixels, near a thing or anywhere."""
    zoom = math.exp(rng.uniform(math.log(1.05), math.log(2.6)))
    width = 1 / zoom
    height = min(1.0, width * rng.uniform(1, max(1.0, size[0] / size[1])))
    x, y = rng.random(), rng.random()
    if rng.random() < 0.7:
        box = rng.choice([it for it in things if it["eligible"]])["bbox"]
        x, y = (box[0] + box[2]) / 2 + rng.uniform(-0.5, 0.5) * width, (box[1] + box[3]) / 2 + rng.uniform(-0.5, 0.5) * height
    x0, y0 = (min(max(0.0, at - side / 2), 1 - side) for at, side in ((x, width), (y, height)))
    return x0, y0, x0 + width, y0 + height


def rarities(scenes):
    """How often to draw each of `scenes`, which are lists of things: by the mean of its kinds' inverse square roots of frequency."""
    kinds = [[it["kind"] for it in things if it["eligible"]] for things in scenes]
    frequency = Counter(itertools.chain.from_iterable(kinds))
    return [sum(frequency[kind] ** -0.5 for kind in its) / len(its) for its in kinds]


def batch_losses(model, scenes, rng, args):
    n = args.images
    images, things, cells, phrases, asked_of = [], [], [], {}, []
    for b in range(n):
        image, its, mask, kinds = scenes.draw(rng)
        if rng.random() < 0.5:
            image, its, mask = image[:, ::-1], flipped(its), mask[:, ::-1]
        images.append(torch.from_numpy(augment(image, rng)))
        things.append(its)
        cells.append(torch.from_numpy(cells_of(np.ascontiguousarray(mask), its, GRID).astype(np.int64)))
        queries = [text.present_query(rng, its) for _ in range(args.phrases)]
        queries += [text.wrong_color_query(rng, its), text.alike_query(rng, its, kinds), text.unknown_query(rng)]
        queries += [text.absent_query(rng, its, kinds) for _ in range(args.phrases + 1 - sum(it is not None for it in queries[args.phrases :]))]
        for query in queries:
            if query is not None:
                phrases[query["phrase"]] = query["means"]
                asked_of.append((b, query["phrase"]))
    order = {phrase: p for p, phrase in enumerate(phrases)}
    own = torch.zeros(n, len(phrases), dtype=torch.bool)
    for b, phrase in asked_of:
        own[b, order[phrase]] = True
    device = args.device
    cells, images = torch.stack(cells).to(device), torch.stack(images).to(device)
    with torch.set_grad_enabled(args.only is None):
        vision_map = model.vision(images)
    losses = {} if args.only else dense_losses(model, vision_map, things, cells, phrases, own.to(device))
    asked = [b for b in range(n) if rng.random() < args.texts]
    if asked:
        # The decoder's gradients would be noise to the tower, which has better teachers.
        features = model.project(vision_map.detach()[torch.tensor(asked)])
        pairs = [text.text_query(rng, things[b]) for b in asked]
        ids, mask = pad([model.ids(prompt) for prompt, _ in pairs])
        answers = [model.ids(answer) for _, answer in pairs]
        labels, valid = pad(answers)
        decoder_ids, _ = pad([[2] + it[:-1] for it in answers])
        logits = model.text_logits(features, ids.to(device), mask.to(device), decoder_ids.to(device)).float()
        valid = valid.bool()
        losses["text"] = F.cross_entropy(logits[valid], labels[valid].to(device))
        with torch.no_grad():
            losses["text_right"] = (logits[valid].argmax(-1) == labels[valid].to(device)).float().mean()
    return losses


def dense_losses(model, vision_map, things, cells, phrases, own):
    n, device = len(things), vision_map.device
    boxes = torch.zeros(n, GRID * GRID, 4)
    kinds = torch.full((n, GRID * GRID), len(text.KINDS))
    colors = torch.full((n, GRID * GRID), -100)
    share = torch.zeros(n, GRID * GRID)  # small things have few cells, and need good boxes no less
    # What each phrase is of each cell: 1 its name, 0 not, -1 perhaps.
    named = torch.zeros(n, len(phrases), GRID * GRID)
    unclear = torch.zeros(n, len(phrases), dtype=torch.bool)  # whether anything in the image bears it
    for b, its in enumerate(things):
        at = [(cells[b] == j).cpu() for j in range(len(its))]
        for it, where in zip(its, at):
            boxes[b, where] = torch.tensor(it["bbox"], dtype=torch.float)
            share[b, where] = 1 / max(1, int(where.sum())) ** 0.5
            kinds[b, where] = text.KINDS.index(it["kind"])
            if it["color"]:
                colors[b, where] = text.COLORS.index(it["color"])
        for p, means in enumerate(phrases.values()):
            found, unsure = text.matches(its, *means)
            for j in found:
                named[b, p, at[j]] = 1
            for j in unsure:
                named[b, p, at[j]] = -1
            unclear[b, p] = bool(unsure) or any(not its[j]["eligible"] for j in found)
    boxes, kinds, colors, named, share, unclear = (it.to(device) for it in (boxes, kinds, colors, named, share, unclear))
    kinds[cells == IGNORE] = -100
    on = cells >= 0
    kind, color = model.vision_head(vision_map)
    kind, color = kind.float(), color.float()
    by_thing = share[on] / share[on].sum()
    losses = dict(
        v_kind=0.5 * F.cross_entropy(kind.flatten(0, 1), kinds.flatten(), ignore_index=-100)
        + 0.5 * (F.cross_entropy(kind[on], kinds[on], reduction="none") * by_thing).sum(),
        v_color=F.cross_entropy(color[on], colors[on], ignore_index=-100),
    )
    ids, mask = pad([model.ids(phrase) for phrase in phrases])
    vectors, bias = model.phrases(ids.to(device), mask.to(device))
    units, cell_bias, box = model.grounding_head.cells(vision_map)
    losses["box"] = box_loss(box[on], boxes[on], share[on])
    logit = model.grounding_head.logits(units, cell_bias, vectors, bias)
    # A cell is right by as much as its box is, and of each thing one cell is right: so the best box scores highest, and others little.
    with torch.no_grad():
        quality = ((iou(box.flatten(0, 1), boxes.flatten(0, 1))[0] - 0.25) / 0.45).clamp(0, 1).view(n, -1)
        for b in range(n):
            for j in range(len(things[b])):
                where = (cells[b] == j).nonzero()[:, 0]
                if len(where):
                    quality[b, where[quality[b, where].argmax()]] = 1
        target = named.clamp(min=0) * quality[:, None]
    valid = (named >= 0) & (cells != IGNORE)[:, None]
    bce = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    focal = bce * (logit.sigmoid() - target).abs() ** 2 * valid * (1 + target)
    losses["focal"] = 2 * focal.sum() / target.sum().clamp(min=1)
    # An image and a phrase: the highest score is what decides.
    low = torch.finfo(logit.dtype).min
    is_there = (target > 0).any(2)
    highest = lambda where: logit.masked_fill(~where, low).amax(2)
    weight = torch.where(own, 1.0, 0.15)
    mean = lambda loss, where: (loss * weight)[where].sum() / weight[where].sum().clamp(min=1)
    is_absent = ~is_there & ~unclear & (named == 0).all(2)
    losses["absent"] = mean(F.softplus(highest(valid)), is_absent)
    losses["present"] = mean(F.softplus(-highest(target > 0.5)), is_there)
    losses["elsewhere"] = mean(F.softplus(highest(valid & (named == 0))), is_there & ~unclear)
    with torch.no_grad():
        losses["kind_right"] = (kind[on].argmax(-1) == kinds[on]).float().mean()
        has_color = colors[on] >= 0
        losses["color_right"] = (color[on].argmax(-1) == colors[on])[has_color].float().mean()
        losses["box_iou50"] = (iou(box[on], boxes[on])[0] > 0.5).float().mean()
        top = logit.argmax(2)[..., None]
        losses["top_right"] = (named.gather(2, top)[..., 0] > 0)[is_there].float().mean()
        losses["found"] = (highest(target > 0.5) > 0)[is_there & own].float().mean()
        losses["absent_over"] = (highest(valid) > 0)[is_absent & own].float().mean()
    return losses


def augment(image, rng):
    """Light, sensor and lens of another camera; colors stay what they are called."""
    out = image.astype(np.float32)
    if rng.random() < 0.3:
        out = blurred(out, rng.uniform(0.2, 1.0)) if rng.random() < 0.7 else out + rng.uniform(0.2, 0.8) * (out - blurred(out, 1.0))
    gain = np.array([rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05) for _ in range(3)], np.float32)
    out = out * gain + rng.uniform(-14, 14)
    if rng.random() < 0.5:
        out = 255 * np.clip(out / 255, 0, 1) ** rng.uniform(0.75, 1.3)
    if rng.random() < 0.5:
        gray = out.mean(2, keepdims=True)
        out = gray + (out - gray) * rng.uniform(0.8, 1.2)
    if rng.random() < 0.4:
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(out.shape, np.float32)
        out += noise * rng.uniform(0, 7)
    return np.clip(out, 0, 255)


def blurred(image, strength):
    """A share of each pixel goes to its neighbors."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), "edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    mean = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    return image + strength * (mean - image)


def iou(a, b):
    size = (torch.min(a[:, 2:], b[:, 2:]) - torch.max(a[:, :2], b[:, :2])).clamp(min=0)
    inter = size[:, 0] * size[:, 1]
    area = lambda it: (it[:, 2] - it[:, 0]).clamp(min=0) * (it[:, 3] - it[:, 1]).clamp(min=0)
    union = area(a) + area(b) - inter + 1e-9
    return inter / union, union


def box_loss(predicted, target, weight):
    """Generalized IoU plus L1, weighted."""
    overlap, union = iou(predicted, target)
    hull = torch.max(predicted[:, 2:], target[:, 2:]) - torch.min(predicted[:, :2], target[:, :2])
    hull = hull[:, 0] * hull[:, 1] + 1e-9
    loss = 1 - overlap + (hull - union) / hull + 5 * (predicted - target).abs().sum(-1)
    return (loss * weight).sum() / weight.sum()


def weights_of(path):
    if not Path(path).is_dir():
        return torch.load(path)["average"]
    names = {"grounding_head": "grounding_head", "naming_head": "vision_head"}
    tensors = {}
    for name, value in load_file(Path(path, "model.safetensors")).items():
        head, _, rest = name.partition(".")
        tensors[f"{names[head]}.{rest}" if head in names else f"florence.{name}"] = value.float()
    # The output layer is the embedding, which the file holds once.
    tensors["florence.lm_head.weight"] = tensors["florence.model.language_model.shared.weight"]
    side = json.loads(Path(path, "preprocessor_config.json").read_text())["size"]["height"]
    for name in ("row_embeddings", "column_embeddings"):
        name = f"florence.model.multi_modal_projector.image_position_embed.{name}.weight"
        at = (torch.arange(len(tensors[name])) + 0.5) * side / INPUT - 0.5
        at = at.clamp(0, len(tensors[name]) - 1)
        low = at.floor().long()
        tensors[name] = torch.lerp(tensors[name][low], tensors[name][(low + 1).clamp(max=len(low) - 1)], (at - low)[:, None])
    return tensors


def load(model, state):
    """A state of a smaller network fits too: the kinds it knows come first, background last; blocks it lacks change nothing at first;
    positions on its grid are stretched over this one."""
    own = model.state_dict()
    for name in ("vision_head.kind.weight", "vision_head.kind.bias"):
        new, old = own[name].clone(), state[name]
        if len(old) < len(new):
            new[: len(old) - 1], new[-1] = old[:-1], old[-1]
            state[name] = new
    for name, value in own.items():
        if "embed_positions" in name and name in state and len(state[name]) < len(value):
            state[name] = torch.cat([state[name], state[name][-1:].expand(len(value) - len(state[name]), -1)])
        if ".blocks." in name and name not in state:
            adds = any(it in name for it in ("conv1.", "conv2.", "proj.", "fc2."))
            state[name] = torch.zeros_like(value) if adds else value.clone()
    # Tied weights may be held under one name alone.
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or not set(missing) <= {name for name in missing if "embed_tokens" in name or "lm_head" in name}:
        raise SystemExit(f"the weights do not fit the model: missing {missing}, not known {unexpected}")


def save(path, state):
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)


if __name__ == "__main__":
    main()
