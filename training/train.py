"""Trains the shipped checkpoint: `python train.py --data DIR --out DIR --stage vision|joint --minutes M [--ranks 2]`.

Stage `vision` teaches the vision tower kinds, colors and boxes of cells; stage `joint` continues with the
text-conditioned dense head (and the same vision losses at a lower weight) and the decoder's texts.
State is written every two minutes, so a stopped run goes on where it was: `--init` takes any state file.
"""

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers import Tokenizer
from torch.nn import functional as F

import text
import tokenizer as bpe
from data import IGNORE, Scenes, flipped
from model import GRID, TinyFlorence, pad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--stage", choices=["vision", "joint"], required=True)
    parser.add_argument("--minutes", type=float, required=True, help="length of the learning-rate schedule")
    parser.add_argument("--init", help="state to start from")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--images", type=int, default=8, help="per rank and step")
    parser.add_argument("--queries", type=int, default=4, help="dense queries per image")
    parser.add_argument("--texts", type=float, default=0.5, help="decoder queries per image")
    parser.add_argument("--detach", action="store_true", help="teach the tower by the vision losses alone")
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=29511)
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    path = Path(args.out, "tokenizer.json")
    if not path.exists():
        rng = random.Random(1)
        scenes = Scenes(args.data, limit=1000)
        bpe.train(text.corpus(rng, scenes.things, 6000, scenes.kinds)).save(str(path))
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
        load(model, torch.load(args.init)["model"])
    model = model.to(memory_format=torch.channels_last)
    vision_only = args.stage == "vision"
    average = {k: v.clone() for k, v in model.state_dict().items()}
    tower = [p for n, p in model.named_parameters() if "vision_tower" in n or "vision_head" in n]
    tower_ids = {id(p) for p in tower}
    rest = [] if vision_only else [p for p in model.parameters() if id(p) not in tower_ids]
    parameters = tower + rest
    scale = 1.0 if vision_only else 0.6
    groups = [dict(params=tower, scale=scale)] + ([dict(params=rest, scale=1.0)] if rest else [])
    optimizer = torch.optim.AdamW(groups, lr=args.rate, weight_decay=0.02, betas=(0.9, 0.98))
    scenes = Scenes(args.data)
    rng = random.Random(f"{args.seed}-{args.stage}-{rank}")
    start = saved = time.monotonic()
    reloaded, step, shown = start, 0, {}
    while True:
        # Every rank must take the same number of steps: rank 0 decides.
        progress = torch.tensor([min(1.0, (time.monotonic() - start) / 60 / args.minutes)])
        if args.ranks > 1:
            dist.broadcast(progress, 0)
        progress = float(progress)
        if rank == 0 and (progress >= 1 or time.monotonic() - saved > 120):
            saved = time.monotonic()
            save(args, model, average, step)
        if progress >= 1:
            break
        if time.monotonic() - reloaded > 240:
            scenes, reloaded = Scenes(args.data), time.monotonic()  # shards may still be coming
        rate = args.rate * min(1.0, (step + 1) / 150) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        losses = batch_losses(model, scenes, rng, args, vision_only)
        loss = sum(losses[name] * weight for name, weight in weights(args).items() if name in losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        reduce_gradients(parameters, args.ranks)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        decay = min(0.995, step / (step + 20))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay) if value.is_floating_point() else None
        for name, value in losses.items():
            shown[name] = 0.97 * shown.get(name, float(value)) + 0.03 * float(value)
        if rank == 0 and step % 50 == 0:
            row = dict(stage=args.stage, step=step, seconds=round(time.monotonic() - start), scenes=len(scenes),
                       images=step * args.images * args.ranks, **{k: round(v, 4) for k, v in shown.items()})
            with open(Path(args.out, "log.jsonl"), "a") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def weights(args):
    aux = 1.0 if args.stage == "vision" or args.detach else 0.3
    return dict(v_kind=2 * aux, v_color=aux, v_box=aux, focal=0.6, box=0.7, text=0.5)


def batch_losses(model, scenes, rng, args, vision_only):
    n = args.images
    images, things, cells = [], [], []
    for _ in range(n):
        i = rng.randrange(len(scenes))
        image, its, its_cells = scenes.image(i), scenes.things[i], scenes.cells[i].reshape(GRID, GRID)
        if rng.random() < 0.5:
            image, its, its_cells = image[:, ::-1], flipped(its), its_cells[:, ::-1]
        images.append(torch.from_numpy(augment(image, rng)))
        things.append(its)
        cells.append(torch.from_numpy(its_cells.reshape(-1).astype(np.int64)))
    cells = torch.stack(cells)
    vision_map = model.vision(torch.stack(images))
    boxes = torch.zeros(n, GRID * GRID, 4)
    kinds = torch.full((n, GRID * GRID), len(text.KINDS))
    colors = torch.full((n, GRID * GRID), -100)
    for b, its in enumerate(things):
        for j, it in enumerate(its):
            at = cells[b] == j
            boxes[b, at] = torch.tensor(it["bbox"], dtype=torch.float)
            kinds[b, at] = text.KINDS.index(it["kind"])
            if it["color"]:
                colors[b, at] = text.COLORS.index(it["color"])
    kinds[cells == IGNORE] = -100
    on = cells >= 0
    kind, color, box = model.vision_head(vision_map)
    losses = dict(
        v_kind=0.5 * F.cross_entropy(kind.flatten(0, 1), kinds.flatten(), ignore_index=-100)
        + 0.5 * F.cross_entropy(kind[on], kinds[on]),
        v_color=F.cross_entropy(color[on], colors[on], ignore_index=-100),
        v_box=box_loss(box[on], boxes[on]),
    )
    with torch.no_grad():
        losses["kind_right"] = (kind[on].argmax(-1) == kinds[on]).float().mean()
        named = colors[on] >= 0
        losses["color_right"] = (color[on].argmax(-1) == colors[on])[named].float().mean()
        losses["box_iou50"] = (iou(box[on], boxes[on])[0] > 0.5).float().mean()
    if vision_only:
        return losses
    # Early on the text losses' gradients are noise to the tower, which has better teachers: see --detach.
    features = model.project(vision_map.detach() if args.detach else vision_map)
    dense = [(b, q) for b in range(n) for q in dense_queries(rng, things[b], args.queries, scenes.kinds)]
    ids, mask = pad([model.ids(text.LOCATE.format(q["phrase"])) for _, q in dense])
    of = torch.tensor([b for b, _ in dense])
    logit, box = model.ground(features[of], ids, mask)
    target = torch.zeros_like(logit)
    for row, (b, q) in enumerate(dense):
        for j in q["found"]:
            target[row][cells[b] == j] = 1
    weight = (cells[of] != IGNORE).float()
    for row, (b, q) in enumerate(dense):
        for j in q["unsure"]:
            weight[row][cells[b] == j] = 0
    bce = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    losses["focal"] = (bce * (1 - torch.exp(-bce)) ** 1.5 * weight * (1 + 2 * target)).sum() / len(dense) / 3
    positive = target > 0
    if positive.any():
        losses["box"] = box_loss(box[positive], boxes[of][positive])
    with torch.no_grad():
        found = positive.any(1)
        top = logit.argmax(1)
        rows = torch.arange(len(dense))
        losses["top_right"] = positive[rows, top][found].float().mean() if found.any() else torch.tensor(0.0)
        if (~found).any():
            losses["absent_over"] = (logit.max(1).values[~found] > 0).float().mean()
    asked = [b for b in range(n) if rng.random() < args.texts]
    if asked:
        pairs = [text.text_query(rng, things[b], scenes.kinds) for b in asked]
        ids, mask = pad([model.ids(prompt) for prompt, _ in pairs])
        answers = [model.ids(answer) for _, answer in pairs]
        labels, valid = pad(answers)
        decoder_ids, _ = pad([[2] + it[:-1] for it in answers])
        logits = model.text_logits(features[torch.tensor(asked)], ids, mask, decoder_ids)
        losses["text"] = F.cross_entropy(logits[valid.bool()], labels[valid.bool()])
    return losses


def dense_queries(rng, things, n, kinds):
    """Queries whose answer is certain: nothing half hidden matches a phrase that is called absent or few."""
    queries = []
    while len(queries) < n:
        query = text.absent_query(rng, things, kinds) if rng.random() < 0.3 else text.present_query(rng, things)
        query["found"] = [j for j in query["found"] if things[j]["eligible"]]
        queries.append(query)
    return queries


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


def box_loss(predicted, target):
    """Generalized IoU plus L1."""
    overlap, union = iou(predicted, target)
    hull = torch.max(predicted[:, 2:], target[:, 2:]) - torch.min(predicted[:, :2], target[:, :2])
    hull = hull[:, 0] * hull[:, 1] + 1e-9
    return (1 - overlap + (hull - union) / hull).mean() + 5 * (predicted - target).abs().sum(-1).mean()


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


def load(model, state):
    """A state made with fewer kinds fits too: the kinds it knows come first, background last."""
    for name in ("vision_head.kind.weight", "vision_head.kind.bias"):
        new, old = model.state_dict()[name].clone(), state[name]
        if len(old) < len(new):
            new[: len(old) - 1], new[-1] = old[:-1], old[-1]
            state[name] = new
    model.load_state_dict(state)


def save(args, model, average, step):
    part = Path(args.out, f"{args.stage}.pt.part")
    torch.save(dict(model=model.state_dict(), average=average, step=step), part)
    part.rename(Path(args.out, f"{args.stage}.pt"))


if __name__ == "__main__":
    main()
