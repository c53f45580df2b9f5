//! What a person may choose about models. Plain data: each model's own options are a struct of their own.

/// How models are loaded and run: what all of them take, each one's own, and which others score what the first one finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOptions {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// How weights are kept.
    pub quantize: Quantize,
    /// Florence-2's own, with or without a dense head.
    pub florence2: Florence2Options,
    /// Directory or name of a second model that looks at each box again (CLIP or SigLIP); empty = none.
    pub verifier: String,
    /// Directory or name of a second model that finds boxes by itself; empty = none.
    pub second_model: String,
}

/// How Florence-2 writes its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Florence2Options {
    /// How text is generated.
    pub decode: Decode,
    /// Whether the ban of repeated runs of tokens holds for location tokens too, as in the reference.
    pub ban_repeated_locations: bool,
    /// Whether it may answer with boxes of the asked phrase only: faster, always at least one box, and the phrase's own
    /// probability becomes a sign of its absence. The reference lets the model say anything.
    pub limit_to_locations: bool,
}

/// How weights are kept: on the CPU those of linear layers, on a GPU all of them, and what flows between the layers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    /// As the checkpoint has them, computed with in f32.
    None,
    /// In 8 bits, 32 values sharing a scale. On the CPU only.
    Q8_0,
    /// As bfloat16; what they are multiplied with is rounded likewise, sums are f32.
    Bf16,
    /// As 16-bit integers with one scale for each output; what they are multiplied with is rounded likewise. On the CPU only.
    Int16,
    /// As 8-bit integers with one scale for 128 values of an output; what they are multiplied with is rounded likewise. On the CPU only.
    Int8,
    /// As IEEE half precision, likewise: three more bits than bfloat16, values up to 65504. On a GPU only.
    F16,
}

impl Quantize {
    /// All of them, as options name them.
    pub const NAMES: &[&str] = &["none", "q8_0", "bf16", "int16", "int8", "f16"];

    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::None, Self::Q8_0, Self::Bf16, Self::Int16, Self::Int8, Self::F16]
            .into_iter()
            .find(|it| it.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Q8_0 => "q8_0",
            Self::Bf16 => "bf16",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
            Self::F16 => "f16",
        }
    }
}

/// How text is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decode {
    /// By beam search with as many beams as the checkpoint asks for: the reference's way.
    Beam,
    /// The most probable token at each step: faster.
    Greedy,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            quantize: Quantize::None,
            florence2: Florence2Options::default(),
            verifier: String::new(),
            second_model: String::new(),
        }
    }
}

impl ModelOptions {
    /// The defaults, on this device.
    pub fn on(device: &str) -> Self {
        Self { device: device.to_owned(), ..Self::default() }
    }
}

impl Default for Florence2Options {
    fn default() -> Self {
        Self { decode: Decode::Beam, ban_repeated_locations: true, limit_to_locations: false }
    }
}
