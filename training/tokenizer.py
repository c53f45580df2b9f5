"""A small byte-level BPE with Florence-2's special tokens, in the hub's tokenizer.json format."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TASK_TOKENS = [
    "<od>", "</od>", "<ocr>", "</ocr>",
    *[f"<loc_{i}>" for i in range(1000)],
    "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>",
    "<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>",
    "</proposal>", "<poly>", "</poly>", "<and>", "<image>",
]  # the misspelling is Florence-2's own


def train(texts, vocab_size=900):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.add_special_tokens(TASK_TOKENS)
    return tokenizer
