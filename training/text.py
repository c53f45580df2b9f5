"""Words of the generated scenes: nouns, phrases with known referents, prompts and captions.

A query is a prompt for the model with its answer: for the dense head the indices of the objects a phrase
names (possibly none), for the decoder a text. Everything is drawn from a `random.Random`.
"""

KINDS = ["cup", "bowl", "bottle", "box", "ball", "plate", "can", "banana", "marker", "apple"]
COLORS = ["red", "green", "blue", "yellow", "orange", "purple", "pink", "white", "black", "brown", "gray"]
SYNONYMS = {
    "cup": ["cup", "cup", "mug", "coffee mug"],
    "bowl": ["bowl", "bowl", "bowl", "soup bowl"],
    "bottle": ["bottle", "bottle", "bottle", "water bottle"],
    "box": ["box", "box", "block", "cube"],
    "ball": ["ball"],
    "plate": ["plate", "plate", "plate", "dish"],
    "can": ["can", "can", "soda can", "tin"],
    "banana": ["banana"],
    "marker": ["marker", "marker", "pen"],
    "apple": ["apple"],
}
PLURALS = {"box": "boxes", "dish": "dishes"}
# Nothing that a table could hold and the generator draws, or might draw later under another name.
UNKNOWN = (
    "zebra cat dog laptop keyboard phone car chair person spoon fork knife scissors hammer book shoe hat lamp "
    "clock tree pizza donut carrot robot drill screwdriver remote mouse monitor umbrella bag bird horse train "
    "glove sponge candle basket bucket guitar"
).split()
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

LOCATE = "Locate {} in the image."
CAPTION = "What does the image describe?"
REGION = "What does the region {} describe?"


def plural(noun):
    head, _, last = noun.rpartition(" ")
    return (head + " " if head else "") + PLURALS.get(last, last + "s")


def with_article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def describe(thing):
    return thing["color"] + " " + thing["kind"]


def noun_phrase(rng, kind, color, many=False):
    noun = rng.choice(SYNONYMS[kind]) if kind else rng.choice(["object", "thing"])
    if many:
        noun = plural(noun)
    if color == "gray" and rng.random() < 0.2:
        color = "grey"
    return (color + " " if color else "") + noun


def matches(things, kind, color):
    return [i for i, it in enumerate(things) if kind in (None, it["kind"]) and color in (None, it["color"])]


def present_query(rng, things):
    """A phrase that names at least one eligible thing, or None."""
    named = rng.choice([it for it in things if it["eligible"]])
    draw = rng.random()
    if draw < 0.55:
        kind, color = named["kind"], named["color"]
    elif draw < 0.85:
        kind, color = named["kind"], None
    else:
        kind, color = None, named["color"]
    found = matches(things, kind, color)
    return dict(kind=kind, color=color, found=found, phrase=decorate(rng, kind, color))


def absent_query(rng, things):
    """A phrase that names nothing in the scene: a wrong color, a wrong kind, or a noun never drawn."""
    for _ in range(30):
        draw = rng.random()
        if draw < 0.55:
            named = rng.choice(things)
            if rng.random() < 0.6:
                kind, color = named["kind"], rng.choice(COLORS)
            else:
                kind, color = rng.choice(KINDS), named["color"]
        elif draw < 0.78:
            kind, color = rng.choice(KINDS), None
        elif draw < 0.86:
            kind, color = None, rng.choice(COLORS)
        else:
            break
        if not matches(things, kind, color):
            return dict(kind=kind, color=color, found=[], phrase=decorate(rng, kind, color))
    color = rng.choice(COLORS) if rng.random() < 0.4 else None
    noun = rng.choice(UNKNOWN)
    return dict(kind=noun, color=color, found=[], phrase=(color + " " if color else "") + noun)


def decorate(rng, kind, color):
    draw = rng.random()
    phrase = noun_phrase(rng, kind, color, many=draw < 0.08)
    return ("the " if draw > 0.85 else "") + phrase


def left_to_right(things):
    return sorted((it for it in things if it["eligible"]), key=lambda it: it["bbox"][0] + it["bbox"][2])


def caption(things):
    parts = [with_article(describe(it)) for it in left_to_right(things)]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def text_query(rng, things):
    """(prompt, answer) for the decoder; a box in the prompt is a list of four numbers in [0, 1]."""
    shown = left_to_right(things)
    draw = rng.random()
    if draw < 0.2:
        return [CAPTION], caption(things)
    if draw < 0.75:
        it = rng.choice(shown)
        before, after = REGION.split("{}")
        return [before, it["bbox"], after], describe(it)
    it = rng.choice(shown)
    if draw < 0.85:
        if len(matches(things, it["kind"], None)) == 1:
            noun = rng.choice(SYNONYMS[it["kind"]])
            return ["What color is the " + noun + "?"], it["color"]
        draw = 0.9
    if draw < 0.92:
        kind = it["kind"] if rng.random() < 0.8 else rng.choice(KINDS)
        count = len(matches(things, kind, None))
        noun = plural(rng.choice(SYNONYMS[kind]))
        return ["How many " + noun + " are there?"], NUMBERS[count]
    query = present_query(rng, things) if rng.random() < 0.5 else absent_query(rng, things)
    phrase = query["phrase"].removeprefix("the ")
    return ["Is there " + with_article(phrase) + "?"], "yes" if query["found"] else "no"


def corpus(rng, scenes, n):
    """Texts like the ones trained on, for the tokenizer."""
    for _ in range(n):
        things = rng.choice(scenes)
        for query in (present_query(rng, things), absent_query(rng, things)):
            yield LOCATE.format(query["phrase"])
        prompt, answer = text_query(rng, things)
        yield "".join(part for part in prompt if isinstance(part, str))
        yield answer
