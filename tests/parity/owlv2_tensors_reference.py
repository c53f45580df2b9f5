"""Names and shapes of the tensors of the released OWLv2 checkpoints, for tests/parity_owlv2.rs.

    python tests/parity/owlv2_tensors_reference.py      # writes tests/data/owlv2_tensors.json.gz

The released files are not read: transformers' `Owlv2ForObjectDetection` is built on the meta device from the sizes of
`google/owlv2-base-patch16-ensemble` (the reference's defaults at 960 pixels) and `google/owlv2-large-patch14-ensemble` (written
out below). Made with transformers 5.23.0.
"""

import gzip
import json
from pathlib import Path

import torch
from transformers import Owlv2Config, Owlv2ForObjectDetection

OUT = Path(__file__).parent.parent / "data" / "owlv2_tensors.json.gz"
CONFIGS = {
    "base-patch16-ensemble": dict(vision_config=dict(image_size=960)),
    "large-patch14-ensemble": dict(
        text_config=dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12),
        vision_config=dict(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=1008, patch_size=14
        ),
        projection_dim=768,
    ),
}

checkpoints = {}
for name, sizes in CONFIGS.items():
    with torch.device("meta"):
        model = Owlv2ForObjectDetection(Owlv2Config(**sizes))
    tensors = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    checkpoints[name] = {"config": {"model_type": "owlv2"} | sizes, "tensors": tensors}
    print(name, len(tensors), sum(tensor.numel() for tensor in model.parameters()) / 1e6, "M parameters")
OUT.write_bytes(gzip.compress(json.dumps(checkpoints, separators=(",", ":")).encode(), mtime=0))
