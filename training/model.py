"""The tiny Florence-2 with its dense grounding head, and the heads that exist only while training."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Florence2Config, Florence2ForConditionalGeneration

from data import INPUT
from text import COLORS, KINDS

SIZE, GRID, BOX_SCALE = INPUT, INPUT // 16, 0.1
EMBED = 128  # of the space that cells and phrases share
MEAN = torch.tensor([0.485, 0.456, 0.406]) * 255
STD = torch.tensor([0.229, 0.224, 0.225]) * 255


def config(tokenizer, d_model=192, layers=2, dims=(32, 64, 128, 192), depths=(1, 1, 5, 1)):
    heads = [dim // 32 for dim in dims]
    return Florence2Config(
        vision_config=dict(
            depths=list(depths), patch_size=[7, 3, 3, 3], patch_stride=[4, 2, 2, 1], patch_padding=[3, 1, 1, 1],
            embed_dim=list(dims), num_heads=heads, num_groups=heads, window_size=GRID // 2, drop_path_rate=0.0,
            projection_dim=d_model, max_position_embeddings=32, max_temporal_embeddings=4,
        ),
        text_config=dict(
            model_type="bart", vocab_size=tokenizer.get_vocab_size(), d_model=d_model, encoder_layers=layers,
            decoder_layers=layers, encoder_ffn_dim=4 * d_model, decoder_ffn_dim=4 * d_model,
            encoder_attention_heads=d_model // 32, decoder_attention_heads=d_model // 32,
            max_position_embeddings=512, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
            bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_bos_token_id=0,
            forced_eos_token_id=2,
        ),
        image_token_id=tokenizer.token_to_id("<image>"),
    )


class DenseHead(nn.Module):
    """Scores every cell of the vision tower's map for every phrase, in a space that both share, and boxes the cell's object.

    A phrase is what the language model's encoder makes of its words alone, so an image is encoded once for all phrases.
    """

    def __init__(self, n_channels, d_model):
        super().__init__()
        self.norm = nn.LayerNorm(n_channels)
        self.cell = nn.Sequential(nn.Linear(n_channels, 2 * n_channels), nn.GELU(), nn.Linear(2 * n_channels, EMBED))
        self.cell_bias = nn.Linear(n_channels, 1)
        self.box = nn.Sequential(nn.Linear(n_channels, n_channels), nn.GELU(), nn.Linear(n_channels, 4))
        self.phrase = nn.Linear(d_model, EMBED)
        self.phrase_bias = nn.Linear(d_model, 1)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        nn.init.constant_(self.cell_bias.bias, -4.0)

    def cells(self, vision_map):
        """[B, C, GRID, GRID] to unit vectors [B, GRID^2, EMBED], their biases [B, GRID^2] and boxes [B, GRID^2, 4]."""
        h = self.norm(vision_map.flatten(2).transpose(1, 2))
        return F.normalize(self.cell(h).float(), dim=-1), self.cell_bias(h)[..., 0].float(), decode_boxes(self.box(h).float())

    def phrases(self, states, mask):
        """Encoder states [P, T, d] of phrases to unit vectors [P, EMBED] and their biases [P]."""
        mask = mask[..., None].to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        return F.normalize(self.phrase(mean).float(), dim=-1), self.phrase_bias(mean)[..., 0].float()

    def logits(self, cells, cell_bias, phrases, phrase_bias):
        """[B, P, GRID^2]"""
        cosine = torch.einsum("bne,pe->bpn", cells, phrases)
        return self.log_scale.exp() * cosine + cell_bias[:, None] + phrase_bias[None, :, None]


class VisionHead(nn.Module):
    """Training only: kind (last class = background) and color of each cell of the vision tower's map."""

    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.kind, self.color = nn.Linear(d, len(KINDS) + 1), nn.Linear(d, len(COLORS))

    def forward(self, vision_map):
        h = self.norm(vision_map.flatten(2).transpose(1, 2))
        return self.kind(h), self.color(h)


def decode_boxes(raw):
    """[..., GRID * GRID, 4] distances to boxes (x0, y0, x1, y1) in [0, 1] image coordinates."""
    center = (torch.arange(GRID, device=raw.device) + 0.5) / GRID
    y, x = torch.meshgrid(center, center, indexing="ij")
    x, y, d = x.flatten(), y.flatten(), F.softplus(raw) * BOX_SCALE
    return torch.stack([x - d[..., 0], y - d[..., 1], x + d[..., 2], y + d[..., 3]], -1)


class TinyFlorence(nn.Module):
    def __init__(self, tokenizer, **kwargs):
        super().__init__()
        self.tokenizer = tokenizer
        self.encoded = {}
        self.loc0 = tokenizer.token_to_id("<loc_0>")
        self.florence = Florence2ForConditionalGeneration(config(tokenizer, **kwargs))
        self.florence.set_attn_implementation("eager")
        text = self.florence.config.text_config
        nn.init.normal_(self.bart.shared.weight, std=0.5 * text.d_model**-0.5)
        self.grounding_head = DenseHead(self.florence.config.vision_config.embed_dim[-1], text.d_model)
        self.vision_head = VisionHead(self.florence.config.vision_config.embed_dim[-1])
        self._widen_positions()

    @property
    def bart(self):
        return self.florence.model.language_model

    def _widen_positions(self):
        """The default position embeddings (std 0.02) drown in the vision features (std about 3)."""
        embed = self.florence.model.multi_modal_projector.image_position_embed
        with torch.no_grad():
            for table in (embed.row_embeddings, embed.column_embeddings):
                n, d = table.weight.shape
                at = ((torch.arange(n) + 0.5) / GRID)[:, None]
                waves = torch.exp(torch.linspace(math.log(0.25), math.log(5.0), d // 2))[None]
                phase = 2 * math.pi * waves * at
                table.weight.copy_(2.0 * torch.cat([phase.sin(), phase.cos()], 1)[:, :d])
            # Location tokens start as smooth functions of their value: neighbors mean nearly the same.
            d = self.bart.shared.weight.shape[1]
            at = ((torch.arange(1000) + 0.5) / 1000)[:, None]
            waves = torch.exp(torch.linspace(math.log(0.25), math.log(8.0), d // 2))[None]
            phase = 2 * math.pi * waves * at
            mix = torch.randn(d, d) / d**0.5
            smooth = torch.cat([phase.sin(), phase.cos()], 1) @ mix
            self.bart.shared.weight[self.loc0 : self.loc0 + 1000] = smooth * 0.5 * d**-0.5 * 1.4

    def vision(self, images):
        """u8 [B, SIZE, SIZE, 3] (or float of the same range) to the vision tower's map [B, C, GRID, GRID]."""
        x = ((images.float() - MEAN.to(images.device)) / STD.to(images.device)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return self.florence.model.vision_tower(x).last_hidden_state

    def project(self, vision_map):
        return self.florence.model.multi_modal_projector(vision_map)

    def encode(self, features, ids, mask):
        """Image features [N, 1 + GRID^2, d] and prompt ids [N, T] to the encoder's output and its mask."""
        embeds = torch.cat([features, self.bart.shared(ids)], 1)
        mask = torch.cat([mask.new_ones(features.shape[:2]), mask], 1)
        return self.bart.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state, mask

    def phrases(self, ids, mask):
        """Prompt ids [P, T] of phrases, without any image, to their unit vectors and biases."""
        states = self.bart.encoder(inputs_embeds=self.bart.shared(ids), attention_mask=mask).last_hidden_state
        return self.grounding_head.phrases(states, mask)

    def text_logits(self, features, ids, mask, decoder_ids):
        hidden, mask = self.encode(features, ids, mask)
        out = self.bart.decoder(
            input_ids=decoder_ids, encoder_hidden_states=hidden, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        return F.linear(out, self.bart.shared.weight)

    def ids(self, parts):
        """Prompt parts (texts and boxes) to token ids with `<s>` and `</s>`."""
        ids = [0]
        for part in [parts] if isinstance(parts, str) else parts:
            if isinstance(part, str):
                ids += self.encode_text(part)
            else:
                ids += [self.loc0 + min(999, max(0, int(v * 1000))) for v in part]
        return ids + [2]

    def encode_text(self, text):
        if text not in self.encoded:
            self.encoded[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self.encoded[text]


def pad(rows, value=1):
    n = max(map(len, rows))
    ids, mask = torch.full((len(rows), n), value), torch.zeros(len(rows), n, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    return ids, mask
