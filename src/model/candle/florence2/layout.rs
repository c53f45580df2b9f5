//! Names of Florence-2's tensors in the older checkpoints (`microsoft/Florence-2-*`), which came with their own code.

/// transformers' name of a tensor of an older checkpoint, and whether the older one is stored transposed.
/// Names that no older checkpoint has are left as they are.
pub fn native_name(name: &str) -> (String, bool) {
    if name == "image_projection" {
        return ("model.multi_modal_projector.image_projection.weight".to_owned(), true);
    }
    for (old, new) in [
        ("image_proj_norm.", "model.multi_modal_projector.image_proj_norm."),
        ("image_pos_embed.", "model.multi_modal_projector.image_position_embed."),
        ("visual_temporal_embed.", "model.multi_modal_projector.visual_temporal_embed."),
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("language_model.final_logits_bias", "final_logits_bias"),
    ] {
        if let Some(rest) = name.strip_prefix(old) {
            return (format!("{new}{rest}"), false);
        }
    }
    let Some(rest) = name.strip_prefix("vision_tower.") else { return (name.to_owned(), false) };
    let mut native = format!("model.vision_tower.{rest}");
    if rest.starts_with("convs.") {
        return (native.replace(".proj.", ".conv."), false);
    }
    for (old, new) in [
        (".fn.dw.", "."),
        (".window_attn.norm.", ".norm1."),
        (".channel_attn.norm.", ".norm1."),
        (".ffn.norm.", ".norm2."),
        (".window_attn.fn.", ".window_attn."),
        (".channel_attn.fn.", ".channel_attn."),
        (".ffn.fn.net.", ".ffn."),
    ] {
        native = native.replace(old, new);
    }
    (native, false)
}

/// Whether a checkpoint with these tensors is an older one.
pub fn is_old_layout<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| name.starts_with("vision_tower.") || name.starts_with("language_model."))
}
