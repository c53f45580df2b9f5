"""What is said about a scene: phrases, prompts and answers, generated from its metadata."""

import random
from dataclasses import dataclass, field

KINDS = ["cup", "bowl", "bottle", "box", "ball", "plate", "can", "banana", "marker", "apple"]
COLORS = ["red", "green", "blue", "yellow", "orange", "purple", "pink", "white", "black", "brown", "gray"]
# Every noun of a kind; the first is said most often.
NOUNS = {
    "cup": ["cup", "mug", "coffee cup"],
    "bowl": ["bowl"],
    "bottle": ["bottle"],
    "box": ["box", "block", "cube"],
    "ball": ["ball"],
    "plate": ["plate", "dish"],
    "can": ["can", "soda can", "tin can"],
    "banana": ["banana"],
    "marker": ["marker", "pen"],
    "apple": ["apple"],
}
# Things that no scene shows. Each word appears in training as an absence only.
UNKNOWN = (
    "zebra cat dog laptop keyboard phone car chair person scissors hammer book shoe hat lamp clock vase flower "
    "tree pizza robot drill screwdriver monitor umbrella bag bird horse train glove candle basket guitar tiger "
    "window door bicycle airplane truck sofa television pillow"
).split()
# Unknown words kept from training, for evaluation.
HELD_OUT_UNKNOWN = (
    "giraffe violin helicopter toaster elephant battery ladder microphone stapler helmet camera wrench"
).split()
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

LOCATE = "Locate {} in the image."
CAPTION = "What does the image describe?"
DESCRIBE_REGION = "What does the region {} describe?"


@dataclass
class Query:
    """One prompt about one image. `answer` is None where only the dense head is asked."""

    task: str
    prompt: list  # strings and boxes
    answer: str | None = None
    targets: list | None = None  # object indices for the dense head; [] = absent; None = not asked
    absent: str | None = None  # why it is absent: "color", "kind", "object" (color only), "unknown"
    ignored: list = field(default_factory=list)  # objects that are neither right nor wrong


def noun_of(rng, kind):
    names = NOUNS[kind]
    return names[0] if len(names) == 1 or rng.random() < 0.6 else rng.choice(names[1:])


def describe(thing):
    return f"{thing['color']} {thing['kind']}"


def with_article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def phrase_of(rng, kind, color):
    words = noun_of(rng, kind) if kind else rng.choice(["object", "object", "thing"])
    words = f"{color} {words}" if color else words
    return f"the {words}" if rng.random() < 0.12 else words


def matching(things, kind, color):
    return [
        i
        for i, it in enumerate(things)
        if (kind is None or it["kind"] == kind) and (color is None or it["color"] == color)
    ]


def present_query(rng, things, form=None):
    """A phrase that some object answers; all objects it fits are targets."""
    seen = [i for i, it in enumerate(things) if it["known"]]
    if not seen:
        return None
    it = things[rng.choice(seen)]
    form = form or rng.choices(["color+kind", "kind", "color"], [55, 28, 17])[0]
    kind = None if form == "color" else it["kind"]
    color = None if form == "kind" else it["color"]
    every = matching(things, kind, color)
    targets = [i for i in every if things[i]["known"]]
    ignored = [i for i in every if not things[i]["known"]]
    return Query("locate", [LOCATE.format(phrase_of(rng, kind, color))], targets=targets, ignored=ignored)


def absent_query(rng, things, reason=None, unknown=None):
    """A phrase that nothing in the scene answers: right kind and wrong color, wrong kind, or an unknown thing."""
    for _ in range(30):
        why = reason or rng.choices(["color", "kind", "object", "unknown"], [45, 28, 12, 15])[0]
        if why == "unknown":
            word = rng.choice(unknown or UNKNOWN)
            words = f"{rng.choice(COLORS)} {word}" if rng.random() < 0.4 else word
            return Query("locate", [LOCATE.format(words)], targets=[], absent=why)
        it = rng.choice(things)
        if why == "color":
            # Half: the kind is there in another color; half: the color is there on another kind.
            kind, color = (it["kind"], rng.choice(COLORS)) if rng.random() < 0.6 else (rng.choice(KINDS), it["color"])
        elif why == "kind":
            kind, color = rng.choice(KINDS), None
        else:
            kind, color = None, rng.choice(COLORS)
        if not matching(things, kind, color):
            return Query("locate", [LOCATE.format(phrase_of(rng, kind, color))], targets=[], absent=why)
    return None


def region_query(rng, things):
    seen = [it for it in things if it["known"]]
    if not seen:
        return None
    it = rng.choice(seen)
    return Query("region", ["What does the region ", it["box"], " describe?"], describe(it))


def caption_query(things):
    order = sorted((it for it in things if it["known"]), key=lambda it: it["box"][0] + it["box"][2])
    if not order:
        return None
    names = [with_article(describe(it)) for it in order]
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return Query("caption", [CAPTION], f"{listed} on a table")


def question_query(rng, things):
    if any(not it["known"] for it in things):
        return None
    form = rng.choice(["color", "count", "exists"])
    it = rng.choice(things)
    if form == "color":
        if len(matching(things, it["kind"], None)) != 1:
            return None
        return Query("color", [f"What color is the {noun_of(rng, it['kind'])}?"], it["color"])
    if form == "count":
        kind = it["kind"] if rng.random() < 0.8 else rng.choice(KINDS)
        noun = NOUNS[kind][0]
        plural = noun + ("es" if noun.endswith("x") else "s")
        return Query("count", [f"How many {plural} are there?"], NUMBERS[len(matching(things, kind, None))])
    kind, color = (it["kind"], it["color"]) if rng.random() < 0.5 else (it["kind"], rng.choice(COLORS))
    words = with_article(phrase_of(rng, kind, color).removeprefix("the "))
    return Query("exists", [f"Is there {words}?"], "yes" if matching(things, kind, color) else "no")


def corpus(n=20000, seed=0):
    """Sentences for the tokenizer, from made-up scenes."""
    rng = random.Random(seed)
    for _ in range(n):
        things = [
            {"kind": rng.choice(KINDS), "color": rng.choice(COLORS), "known": True, "box": [0.1, 0.1, 0.2, 0.2]}
            for _ in range(rng.randint(2, 7))
        ]
        makers = (present_query, absent_query, region_query, question_query, lambda _, t: caption_query(t))
        for make in makers:
            query = make(rng, things)
            if query:
                yield "".join(part for part in query.prompt if isinstance(part, str))
                if query.answer:
                    yield query.answer
