"""What is kept out of training: rooms, models and words. Validation sets choose thresholds and checkpoints, test sets give the figures.

The renderers, `train.py` and `leave_out.py` all read it here. The rooms of STUDY_SCENE are a room of their own, with walls, desk
and shelf that no scene of another family has: none of them is trained on. Two more rooms (robosuite's arenas) were never drawn for
training by any version, which the first versions cannot say of LIBERO-90's rooms: they had all of them.
"""

VALIDATION_ROOMS = ["KITCHEN_SCENE4", "KITCHEN_SCENE9", "LIVING_ROOM_SCENE3"]
TEST_ROOMS = ["KITCHEN_SCENE8", "KITCHEN_SCENE10", "LIVING_ROOM_SCENE5", "LIVING_ROOM_SCENE6",
              "STUDY_SCENE1", "STUDY_SCENE2", "STUDY_SCENE3", "STUDY_SCENE4"]
# Of robosuite: files in its folder of arenas.
VALIDATION_ARENAS, TEST_ARENAS = ["pegs_arena"], ["table_arena", "bins_arena", "empty_arena"]

# Models of kinds that have others, by their names in meshes.py.
VALIDATION_MODELS = ["salad_dressing", "yellow_mug"]
TEST_MODELS = ["slide_cabinet", "plain_mug"]

# Textures of floors, walls and tables that only validation and test have.
KEPT_TEXTURES = ["rustic_floor", "marble_floor", "red-wood", "wood-tiles", "gray-felt", "clay"]

FIRST_SEED = dict(train=3_000_000, validation=910_000_000, test=920_000_000)
SPLITS = list(FIRST_SEED)


def rooms(split, every):
    """Of the names of all rooms, those of a split."""
    kept = dict(validation=VALIDATION_ROOMS, test=TEST_ROOMS)
    if split in kept:
        return [it for it in every if it in kept[split]]
    return [it for it in every if it not in VALIDATION_ROOMS + TEST_ROOMS]


def models(split, every):
    """Of the names of all models, those that may be in the scenes of a split: its own left-out ones and all that train."""
    own = dict(train=[], validation=VALIDATION_MODELS, test=TEST_MODELS)[split]
    return [it for it in every if it in own or it not in VALIDATION_MODELS + TEST_MODELS]


def textures(split, every):
    return [it for it in every if (it in KEPT_TEXTURES) != (split == "train")]


def split_of_word(word):
    """`train`, `validation` or `test`, by a hash that no version of Python changes: 70, 10 and 20 of a hundred words."""
    value = 0
    for byte in word.encode():
        value = (value * 131 + byte) % 1_000_003
    return "train" if value % 100 < 70 else "validation" if value % 100 < 80 else "test"
