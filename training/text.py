"""Words of the generated scenes: nouns, phrases with known referents, prompts and captions.

A query is a prompt for the model with its answer: for the dense head the indices of the objects a phrase
names (possibly none) and of those it may or may not name, for the decoder a text. Everything is drawn from a `random.Random`.
"""

from pathlib import Path

from splits import split_of_word

# What people call each kind, most used first; the first ten are built from primitives, those up to the wine rack are models.
SYNONYMS = {
    "cup": ["cup", "cup", "mug", "mug", "coffee mug"],
    "bowl": ["bowl", "bowl", "bowl", "soup bowl"],
    "bottle": ["bottle", "bottle", "bottle", "water bottle"],
    "box": ["box", "box", "block", "cube"],
    "ball": ["ball"],
    "plate": ["plate", "plate", "plate", "dish"],
    "can": ["can", "can", "soda can", "tin"],
    "banana": ["banana"],
    "marker": ["marker", "marker", "pen"],
    "apple": ["apple"],
    "alphabet soup": ["alphabet soup", "alphabet soup", "alphabet soup can", "soup"],
    "barbecue sauce": ["barbecue sauce", "bbq sauce"],
    "basket": ["basket"],
    "book": ["book", "book", "notebook"],
    "bowl drainer": ["bowl drainer", "dish drainer"],
    "bread": ["bread", "bread loaf"],
    "butter": ["butter"],
    "cabinet": ["cabinet", "cabinet", "drawer cabinet"],
    "cereal box": ["cereal box", "cereal"],
    "chocolate pudding": ["chocolate pudding", "chocolate pudding", "pudding"],
    "cookies": ["cookies", "cookie box"],
    "cream cheese": ["cream cheese", "cream cheese", "cream cheese box"],
    "desk caddy": ["caddy", "desk caddy", "desk organizer"],
    "dining set": ["dining set", "place mat"],
    "dish rack": ["dish rack", "plate rack"],
    "faucet": ["faucet", "tap"],
    "fridge": ["fridge", "refrigerator"],
    "frying pan": ["frying pan", "frying pan", "pan", "skillet"],
    "ketchup": ["ketchup", "ketchup", "ketchup bottle"],
    "lemon": ["lemon"],
    "macaroni and cheese": ["macaroni and cheese", "macaroni box"],
    "microwave": ["microwave", "microwave", "microwave oven"],
    "milk": ["milk", "milk", "milk carton"],
    "moka pot": ["moka pot", "moka pot", "coffee pot"],
    "orange juice": ["orange juice", "orange juice", "juice carton"],
    "plant": ["plant", "potted plant"],
    "popcorn": ["popcorn", "popcorn box"],
    "ramekin": ["ramekin"],
    "robot arm": ["robot arm", "robot"],
    "salad dressing": ["salad dressing", "salad dressing", "dressing"],
    "shelf": ["shelf"],
    "storage box": ["storage box"],
    "stove": ["stove", "stove", "hot plate"],
    "tomato sauce": ["tomato sauce", "tomato sauce", "tomato sauce can"],
    "tray": ["tray"],
    "wine bottle": ["wine bottle", "wine bottle", "bottle of wine"],
    "wine rack": ["wine rack"],
    # Built from primitives too, but only in furnished scenes.
    "pear": ["pear"],
    "egg": ["egg"],
    "carrot": ["carrot"],
    "mushroom": ["mushroom"],
    "candle": ["candle"],
    "vase": ["vase", "vase", "flower vase"],
    "jar": ["jar"],
    "teapot": ["teapot", "teapot", "tea pot"],
    "pitcher": ["pitcher", "pitcher", "jug"],
    "goblet": ["goblet", "goblet", "wine glass"],
    "spoon": ["spoon"],
    "fork": ["fork"],
    "knife": ["knife"],
    "hammer": ["hammer"],
    "screwdriver": ["screwdriver"],
    "donut": ["donut", "donut", "doughnut"],
    "lamp": ["lamp", "lamp", "table lamp"],
    "cone": ["cone", "traffic cone"],
    "bucket": ["bucket", "bucket", "pail"],
}
KINDS = list(SYNONYMS)
PRIMITIVES, FURNISHED = KINDS[:10], KINDS[KINDS.index("pear"):]
COLORS = ["red", "green", "blue", "yellow", "orange", "purple", "pink", "white", "black", "brown", "gray"]
# Kinds that come in any color, so that a color with them is a sensible phrase.
COLORED = "cup bowl bottle box ball plate can banana marker apple book ramekin cabinet shelf".split() + ["desk caddy", "storage box"]
COLORED += "candle vase jar teapot pitcher goblet knife hammer screwdriver donut lamp cone bucket".split()
# Kinds that someone may well call by another kind's name: neither right nor wrong, so neither taught nor asked.
ALSO = {
    "alphabet soup": ["can"], "tomato sauce": ["can"],
    "barbecue sauce": ["bottle"], "ketchup": ["bottle"], "salad dressing": ["bottle"], "wine bottle": ["bottle"],
    "bottle": ["wine bottle", "ketchup", "barbecue sauce", "salad dressing"], "can": ["alphabet soup", "tomato sauce"],
    "basket": ["box", "storage box"], "tray": ["box", "basket"], "storage box": ["box", "basket"], "desk caddy": ["box", "tray"],
    "cabinet": ["box", "shelf"], "shelf": ["cabinet", "box"], "fridge": ["box", "cabinet"], "microwave": ["box"],
    "dish rack": ["bowl drainer", "wine rack"], "bowl drainer": ["dish rack", "basket", "tray"], "wine rack": ["shelf"],
    "ramekin": ["bowl", "cup"], "bowl": ["ramekin"], "goblet": ["cup"], "egg": ["ball"], "jar": ["can", "bottle"], "vase": ["bottle"],
    "teapot": ["moka pot"], "pitcher": ["vase"], "bucket": ["basket", "bowl"], "candle": ["can"], "frying pan": ["bowl"], "dining set": ["plate", "tray"], "lemon": ["ball"],
    **{it: ["box"] for it in ("butter", "cereal box", "chocolate pudding", "cookies", "cream cheese", "macaroni and cheese",
                              "milk", "orange juice", "popcorn", "book")},
}
# What models are made of, by their names: only where everyone would say so. Wood that is painted no longer looks it.
MATERIALS = {
    "wooden": ["wine_rack", "tray", "shelf", "two_layer_shelf", "cabinet_base", "wooden_cabinet", "wooden_cabinet_open"],
    "metal": ["moka_pot", "frying_pan", "faucet", "soda_can"],
    "glass": ["wine_bottle"],
}
PLURALS = {"box": "boxes", "dish": "dishes", "shelf": "shelves", "knife": "knives"}
COUNTED = "cup bowl bottle box ball plate can banana marker apple book lemon ramekin cabinet shelf tray basket".split() + FURNISHED
# Concrete nouns that nothing in any scene bears, for phrases to be refused; splits.py keeps some of them from training.
# From WordNet 3.1 (Princeton University, WordNet License): things, animals, food, plants and a few people that its tagged texts have.
NOUNS = Path(__file__).with_name("nouns.txt").read_text().split("\n")[:-1]
# Words of earlier evaluations, never trained on by any version.
NEVER_TRAINED = "giraffe violin helicopter toaster elephant battery ladder microphone stapler helmet wrench pillow".split()
UNKNOWN = [it for it in NOUNS if split_of_word(it) == "train" and it not in NEVER_TRAINED]
KEPT_WORDS = {split: [it for it in NOUNS if split_of_word(it) == split and it not in NEVER_TRAINED] for split in ("validation", "test")}
KEPT_WORDS["test"] += NEVER_TRAINED
# Kinds that are taken for each other: asked for where only another one of them is.
ALIKE = [
    ("banana", "marker", "carrot", "screwdriver", "knife", "spoon", "fork", "hammer"), ("alphabet soup", "tomato sauce", "can", "cup", "jar"),
    ("ketchup", "barbecue sauce", "salad dressing", "bottle", "wine bottle", "milk"), ("milk", "orange juice", "cereal box", "popcorn"),
    ("butter", "cream cheese", "chocolate pudding", "cookies", "macaroni and cheese", "popcorn", "bread", "box", "cereal box", "book"),
    ("cabinet", "shelf", "microwave", "fridge", "storage box", "box"), ("stove", "tray", "plate", "dining set", "microwave"),
    ("bowl", "ramekin", "cup", "plate", "frying pan"), ("basket", "tray", "bowl drainer", "dish rack", "storage box", "desk caddy", "bucket"),
    ("egg", "lemon", "ball", "apple", "pear", "donut", "bread", "mushroom"), ("moka pot", "teapot", "pitcher", "cup", "vase", "jar", "milk"),
    ("wine rack", "shelf", "dish rack", "desk caddy", "cabinet"), ("candle", "can", "vase", "goblet", "lamp", "cone", "bottle"),
]
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
    if thing["label"]:
        return thing["label"]
    return (thing["color"] + " " if thing["color"] and thing["kind"] in COLORED else "") + thing["kind"]


def noun_phrase(rng, kind, color, many=False):
    noun = rng.choice(SYNONYMS[kind]) if kind else rng.choice(["object", "thing"])
    if many:
        noun = plural(noun)
    if color == "gray" and rng.random() < 0.2:
        color = "grey"
    return (color + " " if color else "") + noun


def matches(things, kind, color, label=None, material=None):
    """Indices of the things that a phrase names, and of those that it may or may not name."""
    found, unsure = [], []
    for i, it in enumerate(things):
        if label is not None:
            likes = [it["label"] == label]
        else:
            likes = [
                kind in (None, it["kind"]) or (None if kind in ALSO.get(it["kind"], ()) else False),
                color in (None, it["color"]) or (None if it["color"] is None else False),
                material in (None, it["material"]) or (None if it["material"] is None else False),
            ]
        if all(likes):
            found.append(i)
        elif False not in likes:
            unsure.append(i)
    return found, unsure


def present_query(rng, things):
    """A phrase that names at least one eligible thing, or None."""
    named = rng.choice([it for it in things if it["eligible"]])
    draw = rng.random()
    if named["label"] and draw < 0.6:
        found, unsure = matches(things, None, None, named["label"])
        return dict(found=found, unsure=unsure, phrase=named["label"], means=(None, None, named["label"]))
    if named["material"] and draw < 0.25:
        return of_material(rng, things, named, named["material"])
    if named["color"] is None or (named["kind"] not in COLORED and draw < 0.85):
        kind, color = named["kind"], None
    elif draw < 0.55:
        kind, color = named["kind"], named["color"]
    elif draw < 0.85:
        kind, color = named["kind"], None
    else:
        kind, color = None, named["color"]
    found, unsure = matches(things, kind, color)
    return dict(found=found, unsure=unsure, phrase=decorate(rng, kind, color), means=(kind, color))


def absent_query(rng, things, kinds=KINDS):
    """A phrase that names nothing in the scene: a wrong color, material or kind, or a noun never drawn."""
    of_known_material = [it for it in things if it["material"]]
    if of_known_material and rng.random() < 0.06:
        query = of_material(rng, things, rng.choice(of_known_material), rng.choice(list(MATERIALS)))
        if (query["found"], query["unsure"]) == ([], []):
            return query
    for _ in range(30):
        draw = rng.random()
        if draw < 0.55:
            named = rng.choice(things)
            if rng.random() < 0.6 and named["kind"] in COLORED:
                kind, color = named["kind"], rng.choice(COLORS)
            else:
                kind, color = rng.choice([it for it in kinds if it in COLORED]), named["color"] or rng.choice(COLORS)
        elif draw < 0.78:
            kind, color = rng.choice(kinds), None
        elif draw < 0.86:
            kind, color = None, rng.choice(COLORS)
        else:
            break
        if matches(things, kind, color) == ([], []):
            return dict(found=[], unsure=[], phrase=decorate(rng, kind, color), means=(kind, color))
    return unknown_query(rng)


def alike_query(rng, things, kinds):
    """The name of a kind that something in the scene is easily taken for and that nothing is, or None."""
    seen = {it["kind"] for it in things}
    near = [it for group in ALIKE if seen & set(group) for it in group if it not in seen and it in kinds]
    if near:
        kind = rng.choice(near)
        if matches(things, kind, None) == ([], []):
            return dict(found=[], unsure=[], phrase=decorate(rng, kind, None), means=(kind, None))


def wrong_color_query(rng, things):
    """A kind that is there in a color that it has not, or None: the color is often that of something else in the scene."""
    colored = [it for it in things if it["kind"] in COLORED]
    others = [it["color"] for it in things if it["color"]]
    for _ in range(4 if colored else 0):
        kind = rng.choice(colored)["kind"]
        color = rng.choice(others) if others and rng.random() < 0.5 else rng.choice(COLORS)
        if matches(things, kind, color) == ([], []):
            return dict(found=[], unsure=[], phrase=decorate(rng, kind, color), means=(kind, color))


def unknown_query(rng, nouns=UNKNOWN):
    color = rng.choice(COLORS) if rng.random() < 0.3 else None
    noun = rng.choice(nouns)
    phrase = ("the " if rng.random() < 0.1 else "") + (color + " " if color else "") + (plural(noun) if rng.random() < 0.05 else noun)
    return dict(found=[], unsure=[], phrase=phrase, means=(noun, color))


def decorate(rng, kind, color):
    draw = rng.random()
    phrase = noun_phrase(rng, kind, color, many=draw < 0.08 and kind in (None, *COUNTED))
    return ("the " if draw > 0.85 else "") + phrase


def of_material(rng, things, named, material):
    """A query for things of the kind of `named` made of `material`."""
    means = (named["kind"], None, None, material)
    found, unsure = matches(things, *means)
    return dict(found=found, unsure=unsure, phrase=material + " " + rng.choice(SYNONYMS[named["kind"]]), means=means)


def left_to_right(things):
    return sorted((it for it in things if it["eligible"]), key=lambda it: it["bbox"][0] + it["bbox"][2])


def caption(things):
    parts = [with_article(describe(it)) for it in left_to_right(things)]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def text_query(rng, things, kinds=KINDS):
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
        found, unsure = matches(things, it["kind"], None)
        if len(found) == 1 and not unsure and it["color"] and it["kind"] in COLORED:
            noun = rng.choice(SYNONYMS[it["kind"]])
            return ["What color is the " + noun + "?"], it["color"]
        draw = 0.9
    if draw < 0.92:
        kind = it["kind"] if rng.random() < 0.8 and it["kind"] in COUNTED else rng.choice(COUNTED)
        found, unsure = matches(things, kind, None)
        if not unsure:
            noun = plural(rng.choice(SYNONYMS[kind]))
            return ["How many " + noun + " are there?"], NUMBERS[len(found)]
    query = present_query(rng, things) if rng.random() < 0.5 else absent_query(rng, things, kinds)
    phrase = query["phrase"].removeprefix("the ")
    return ["Is there " + with_article(phrase) + "?"], "yes" if query["found"] else "no"


def corpus(rng, scenes, n, kinds=KINDS):
    """Texts like the ones trained on, for the tokenizer."""
    for _ in range(n):
        things = rng.choice(scenes)
        for query in (present_query(rng, things), absent_query(rng, things, kinds)):
            yield query["phrase"]
            yield LOCATE.format(query["phrase"])
        prompt, answer = text_query(rng, things, kinds)
        yield "".join(part for part in prompt if isinstance(part, str))
        yield answer
