"""The tokenizer: byte-level BPE on the generated corpus, Florence-2's special tokens, one contiguous <loc_*> block."""

import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from text import HELD_OUT_UNKNOWN, corpus

TEXT_TOKENS = 720
TAGS = ["<od>", "</od>", "<ocr>", "</ocr>", "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>"]
MORE_TAGS = ["<poly>", "</poly>", "<and>", "<sep>", "<region_cap>", "</region_cap>", "<grounding>", "</grounding>"]


def make():
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    locations = [f"<loc_{i}>" for i in range(1000)]
    tokenizer.add_special_tokens(["<mask>", *TAGS, *locations, *MORE_TAGS, "<image>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def main(path):
    tokenizer = make()
    first = tokenizer.token_to_id("<loc_0>")
    assert tokenizer.token_to_id("<loc_999>") == first + 999, "location tokens are not contiguous"
    text = "Locate red cup in the image."
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text and ids[0] == 0 and ids[-1] == 2
    tokenizer.save(path)
    print(tokenizer.get_vocab_size(), "tokens;", ids, HELD_OUT_UNKNOWN[0], tokenizer.encode(HELD_OUT_UNKNOWN[0]).ids)


if __name__ == "__main__":
    main(sys.argv[1])
