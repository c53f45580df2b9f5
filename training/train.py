"""Trains the shipped checkpoint: `python train.py --data DIR[=SHARE] [DIR..] --out DIR --minutes M [--ranks 2]`.

Everything learns together: the dense head scores every cell for the phrases of the whole batch, heads that exist only while
training name kind, color and box of each cell, and the decoder learns texts from features that it does not change.
State is written every two minutes with optimizer and clock, so the same command goes on where a stopped run was;
`--init` takes the averaged weights of any state file, or an exported checkpoint's folder, and starts a new schedule.
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
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

import text
import tokenizer as bpe
from data import IGNORE, Scenes, cells_of, cropped, flipped
from model import GRID, SIZE, TinyFlorence, pad

WEIGHTS = dict(v_kind=2.0, v_color=0.5, focal=1.0, box=1.0, text=0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, nargs="+", help="folders of shards, each with how often it is drawn from")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, required=True, help="length of the learning-rate schedule")
    parser.add_argument("--init", help="state to take weights from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ranks", type=int, default=1, help="processes on a CPU, one thread each")
    parser.add_argument("--images", type=int, default=16, help="per rank and step")
    parser.add_argument("--phrases", type=int, default=3, help="per image that name something, and as many that do not")
    parser.add_argument("--texts", type=float, default=0.25, help="decoder queries per image")
    parser.add_argument("--only", choices=["decoder"], help="teach the decoder alone")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=29511)
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    path = Path(args.out, "tokenizer.json")
    if not path.exists():
        scenes = Mix(args.data, limit=1000)
        rng = random.Random(1)
        bpe.train(text.corpus(rng, [scenes.draw(rng)[1] for _ in range(1000)], 6000)).save(str(path))
    if args.ranks == 1:
        run(0, args)
    else:
        mp.spawn(run, (args,), nprocs=args.ranks)


def run(rank, args):
    torch.set_num_threads(1)
    if args.ranks > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(args.port))
        dist.init_process_group("gloo", rank=rank, world_size=args.ranks)
    torch.manual_seed(args.seed)  # the same initial weights on every rank
    model = TinyFlorence(Tokenizer.from_file(str(Path(args.out, "tokenizer.json"))))
    if args.init:
        load(model, weights_of(args.init))
    model = model.to(args.device, memory_format=torch.channels_last)
    learns = lambda name: args.only is None or "decoder" in name
    parameters = [p for n, p in model.named_parameters() if learns(n)]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, weight_decay=0.03, betas=(0.9, 0.98))
    average = {k: v.clone() for k, v in model.state_dict().items()}
    path, before, step = Path(args.out, "state.pt"), 0.0, 0
    if path.exists():
        state = torch.load(path, map_location=args.device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, before, step = state["average"], state["seconds"], state["step"]
    scenes, rng = Mix(args.data), random.Random(f"{args.seed}-{rank}-{step}")
    start = saved = reloaded = time.monotonic()
    shown = {}
    while True:
        seconds = before + time.monotonic() - start
        # Every rank must take the same number of steps: rank 0 decides.
        progress = torch.tensor([min(1.0, seconds / 60 / args.minutes)])
        if args.ranks > 1:
            dist.broadcast(progress, 0)
        progress = float(progress)
        if rank == 0 and (progress >= 1 or time.monotonic() - saved > 120):
            saved = time.monotonic()
            save(path, dict(model=model.state_dict(), average=average, optimizer=optimizer.state_dict(), step=step, seconds=seconds))
        if progress >= 1:
            break
        if time.monotonic() - reloaded > 180:
            scenes, reloaded = Mix(args.data), time.monotonic()  # shards may still be coming
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        with torch.autocast(args.device, torch.bfloat16, enabled=is_bf16_fast(args.device)):
            losses = batch_losses(model, scenes, rng, args)
            loss = sum(losses[name] * weight for name, weight in WEIGHTS.items() if name in losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        reduce_gradients(parameters, args.ranks)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        decay = min(0.998, step / (step + 20))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay) if value.is_floating_point() else None
        for name, value in losses.items():
            value = float(value.detach())
            shown[name] = 0.97 * shown.get(name, value) + 0.03 * value
        if rank == 0 and step % 50 == 0:
            row = dict(step=step, seconds=round(seconds), scenes=len(scenes), images=step * args.images * args.ranks,
                       **{k: round(v, 4) for k, v in shown.items()})
            with open(Path(args.out, "log.jsonl"), "a") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def is_bf16_fast(device):
    """A CPU without bf16 instructions takes ten times as long with it as without."""
    return device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)


class Mix:
    """Folders of scenes, each drawn from with its share; within a folder, scenes with rare kinds more often than others."""

    def __init__(self, folders, limit=None):
        named = [it.partition("=") for it in folders]
        self.parts = [(Scenes(path, SIZE, limit), float(share or 1)) for path, _, share in named]
        self.parts = [it for it in self.parts if len(it[0])]
        self.chances = [list(itertools.accumulate(rarities(scenes.things))) for scenes, _ in self.parts]
        self.kinds = sorted({kind for scenes, _ in self.parts for kind in scenes.kinds})

    def __len__(self):
        return sum(len(scenes) for scenes, _ in self.parts)

    def draw(self, rng):
        """An image, its things and its mask; now and then a part of it, enlarged."""
        part = rng.choices(range(len(self.parts)), [it[1] for it in self.parts])[0]
        scenes = self.parts[part][0]
        i = rng.choices(range(len(scenes)), cum_weights=self.chances[part])[0]
        image, things, mask = scenes.image(i), scenes.things[i], scenes.mask(i)
        if rng.random() < 0.35:
            side = rng.uniform(0.5, 0.95)
            x0, y0 = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
            part = cropped(things, x0, y0, side)
            if any(it["eligible"] for it in part):
                return enlarged(image, mask, x0, y0, side, part)
        return image, things, mask


def rarities(scenes):
    """How often to draw each of `scenes`, which are lists of things: by the mean of its kinds' inverse square roots of frequency."""
    kinds = [[it["kind"] for it in things if it["eligible"]] for things in scenes]
    frequency = Counter(itertools.chain.from_iterable(kinds))
    return [sum(frequency[kind] ** -0.5 for kind in its) / len(its) for its in kinds]


def enlarged(image, mask, x0, y0, side, things):
    n = len(mask)
    at = lambda origin: (np.arange(n) + 0.5) / n * side + origin
    rows, columns = (at(y0) * n).astype(int), (at(x0) * n).astype(int)
    window = torch.tensor([[side, 0, 2 * x0 + side - 1], [0, side, 2 * y0 + side - 1]], dtype=torch.float)[None]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    grid = F.affine_grid(window, (1, 3, n, n), align_corners=False)
    pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return pixels[0].permute(1, 2, 0).numpy(), things, mask[np.ix_(rows, columns)]


def batch_losses(model, scenes, rng, args):
    n = args.images
    images, things, cells, phrases = [], [], [], {}
    for _ in range(n):
        image, its, mask = scenes.draw(rng)
        if rng.random() < 0.5:
            image, its, mask = image[:, ::-1], flipped(its), mask[:, ::-1]
        images.append(torch.from_numpy(augment(image, rng)))
        things.append(its)
        cells.append(torch.from_numpy(cells_of(np.asarray(mask), its, GRID).astype(np.int64)))
        for _ in range(args.phrases):
            for query in (text.present_query(rng, its), text.absent_query(rng, its, scenes.kinds)):
                phrases[query["phrase"]] = query["means"]
    device = args.device
    cells, images = torch.stack(cells).to(device), torch.stack(images).to(device)
    with torch.set_grad_enabled(args.only is None):
        vision_map = model.vision(images)
    losses = {} if args.only else dense_losses(model, vision_map, things, cells, phrases)
    asked = [b for b in range(n) if rng.random() < args.texts]
    if asked:
        # The decoder's gradients would be noise to the tower, which has better teachers.
        features = model.project(vision_map.detach()[torch.tensor(asked)])
        pairs = [text.text_query(rng, things[b], scenes.kinds) for b in asked]
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


def dense_losses(model, vision_map, things, cells, phrases):
    n, device = len(things), vision_map.device
    boxes = torch.zeros(n, GRID * GRID, 4)
    kinds = torch.full((n, GRID * GRID), len(text.KINDS))
    colors = torch.full((n, GRID * GRID), -100)
    share = torch.zeros(n, GRID * GRID)  # small things have few cells, and need good boxes no less
    # What each phrase is of each cell: 1 its name, 0 not, -1 perhaps.
    named = torch.zeros(n, len(phrases), GRID * GRID)
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
    boxes, kinds, colors, named, share = (it.to(device) for it in (boxes, kinds, colors, named, share))
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
    target = named.clamp(min=0)
    weight = (named >= 0) * (cells != IGNORE)[:, None]
    bce = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    focal = bce * (1 - torch.exp(-bce)) ** 2 * weight * (1 + target)
    losses["focal"] = 2 * focal.sum() / target.sum().clamp(min=1)
    with torch.no_grad():
        losses["kind_right"] = (kind[on].argmax(-1) == kinds[on]).float().mean()
        has_color = colors[on] >= 0
        losses["color_right"] = (color[on].argmax(-1) == colors[on])[has_color].float().mean()
        losses["box_iou50"] = (iou(box[on], boxes[on])[0] > 0.5).float().mean()
        found = (target > 0).any(2)
        top = logit.argmax(2)[..., None]
        losses["top_right"] = target.gather(2, top)[..., 0][found].mean()
        losses["absent_over"] = (logit.amax(2)[~found & (named == 0).all(2)] > 0).float().mean()
    return losses


def augment(image, rng):
    gain = np.array([rng.uniform(0.85, 1.15) * rng.uniform(0.96, 1.04) for _ in range(3)], np.float32)
    out = image.astype(np.float32) * gain + rng.uniform(-12, 12)
    if rng.random() < 0.4:
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(out.shape, np.float32)
        out += noise * rng.uniform(0, 6)
    return np.clip(out, 0, 255)


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


def reduce_gradients(parameters, ranks):
    if ranks == 1:
        return
    for it in parameters:
        if it.grad is None:
            it.grad = torch.zeros_like(it)
    flat = torch.cat([it.grad.reshape(-1) for it in parameters])
    dist.all_reduce(flat)
    flat /= ranks
    at = 0
    for it in parameters:
        it.grad.copy_(flat[at : at + it.numel()].view_as(it.grad))
        at += it.numel()


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
    return tensors


def load(model, state):
    """A state made with fewer kinds fits too: the kinds it knows come first, background last."""
    for name in ("vision_head.kind.weight", "vision_head.kind.bias"):
        new, old = model.state_dict()[name].clone(), state[name]
        if len(old) < len(new):
            new[: len(old) - 1], new[-1] = old[:-1], old[-1]
            state[name] = new
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
