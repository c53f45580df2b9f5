"""Expected scores and limited decoding for tests/parity_florence2_scores.rs, from transformers' logits alone.

    python tests/parity/florence2_scores_reference.py     # reads tests/data/parity/florence2/, writes scores.json there

Uses the tiny checkpoint that florence2_reference.py made. Every answer is read once more, teacher-forced, and the scores
are computed here from those logits in float64. Made with transformers 5.23.0, torch 2.15.0.
"""

import json
import re

import torch
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

from florence2_reference import OUT, Tower, make_image, preprocess

N_NEAR = 5
MAX_LENGTH = 25  # generation_config.json: 24 new tokens after the start token


class LimitToBoxes(LogitsProcessor):
    """After `n_given` tokens only locations in fours, or the end between boxes; renormalized among those."""

    def __init__(self, n_given, locations, eos):
        self.n_given, self.locations, self.eos = n_given, locations, eos

    def __call__(self, ids, scores):
        if ids.shape[1] + 1 == MAX_LENGTH:  # the end is forced
            return scores
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed[:, self.locations] = True
        n = ids.shape[1] - self.n_given
        if n and n % 4 == 0:
            allowed[:, self.eos] = True
        return torch.log_softmax(scores.masked_fill(~allowed, -torch.inf), -1)


class BanSparingLocations(NoRepeatNGramLogitsProcessor):
    def __init__(self, size, locations):
        super().__init__(size)
        self.locations = locations

    def __call__(self, ids, scores):
        banned = super().__call__(ids, scores)
        banned[:, self.locations] = scores[:, self.locations]
        return banned


class Reference:
    def __init__(self):
        self.tokenizer = Tokenizer.from_file(str(OUT / "tokenizer.json"))
        # The dense head is not transformers'; it is left out.
        self.model = Florence2ForConditionalGeneration.from_pretrained(OUT, dtype=torch.float32).eval()
        self.tower = Tower(self.model, None, self.tokenizer)
        first = self.tokenizer.token_to_id("<loc_0>")
        self.locations = slice(first, first + 1000)

    def generate(self, pixels, prompt, given, processors, n_beams):
        out = self.model.generate(
            **self.tower.inputs(pixels, prompt), decoder_input_ids=torch.tensor([given]), max_length=MAX_LENGTH,
            max_new_tokens=None, num_beams=n_beams, no_repeat_ngram_size=0, early_stopping=n_beams > 1,
            logits_processor=LogitsProcessorList(processors),
        )
        ids = out[0].tolist()
        while ids[-1] == 1:  # padding after the end
            ids.pop()
        return ids

    def boxes(self, pixels, prompt, ids, limited):
        """Scores of every box: four locations in a row, counted from the first after words."""
        logits = self.model(**self.tower.inputs(pixels, prompt), decoder_input_ids=torch.tensor([ids])).logits[0].double()
        log_probs = torch.log_softmax(logits, -1)
        among = torch.log_softmax(logits[:, self.locations], -1)
        first = self.locations.start
        bins = torch.arange(1000, dtype=torch.float64)
        found, run, words, words_log_prob = [], [], 0, 0.0
        for i in range(1, len(ids) + 1):
            bin = ids[i] - first if i < len(ids) and first <= ids[i] < first + 1000 else None
            if bin is not None:
                run.append((i, bin))
                continue
            if not words:  # the reference's pattern takes the first location for the words
                run = run[1:]
            if len(run) >= 4:
                for k in range(0, len(run) - 3, 4):
                    four = run[k : k + 4]
                    p = [among[i - 1, b].item() for i, b in four]
                    mass = [among[i - 1, max(0, b - N_NEAR) : b + N_NEAR + 1].exp().sum().log().item() for i, b in four]
                    std = []
                    for at, _ in four:
                        q = among[at - 1].exp()
                        mean = (q * bins).sum()
                        std.append(((q * (bins - mean) ** 2).sum() ** 0.5).item())
                    found.append({
                        "bins": [b for _, b in four], "location_log_prob": sum(p),
                        "location_probability": float(torch.tensor(p, dtype=torch.float64).mean().exp()),
                        "min_location_probability": float(torch.tensor(min(p), dtype=torch.float64).exp()),
                        "location_mass": float(torch.tensor(mass, dtype=torch.float64).mean().exp()),
                        "phrase_log_prob": words_log_prob, "std_bins": std,
                    })
            if i < len(ids):
                if run:
                    words, words_log_prob = 0, 0.0
                run = []
                if ids[i] not in (0, 2):
                    words += 1
                    words_log_prob += log_probs[i - 1, ids[i]].item()
        return found


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    reference = Reference()
    ban = NoRepeatNGramLogitsProcessor(3)
    cases, n_boxes, n_differ = [], 0, 0
    for seed in range(24):
        width, height = 50 + 17 * seed, 260 - 9 * seed
        pixels = preprocess(make_image(width, height, seed))
        for words in ["red cup", "a green bottle left of the bowl", "ball"]:
            prompt = f"Locate {words} in the image."
            case = {"width": width, "height": height, "seed": seed, "words": words}
            given = [2, 0] + reference.tokenizer.encode(words, add_special_tokens=False).ids
            limit = LimitToBoxes(len(given), reference.locations, 2)
            sparing = BanSparingLocations(3, reference.locations)
            for name, start, processors, n_beams in [
                ("greedy", [2], [ban], 1), ("greedy_sparing", [2], [sparing], 1), ("beams_sparing", [2], [sparing], 3),
                ("limited_greedy", given, [limit, ban], 1), ("limited_beams", given, [limit, ban], 3),
            ]:
                ids = reference.generate(pixels, prompt, start, processors, n_beams)
                case[name] = {"ids": ids}
                text = reference.tokenizer.decode(ids, skip_special_tokens=False)
                # Other tags than locations break words off in ways that only the parser knows; its own tests cover them.
                if name != "beams_sparing" and not re.search(r"<(?!loc_|s>|/s>)", text):
                    case[name]["boxes"] = reference.boxes(pixels, prompt, ids, name.startswith("limited"))
                    n_boxes += len(case[name]["boxes"])
            n_differ += case["greedy"] != case["greedy_sparing"]
            cases.append(case)
    text = json.dumps(cases, separators=(",", ":"))
    text = re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda number: f"{float(number[0]):.7g}", text)
    (OUT / "scores.json").write_text(text)
    print(f"{len(cases)} cases, {n_boxes} boxes with scores, {n_differ} where sparing locations changes greedy decoding")


if __name__ == "__main__":
    main()
