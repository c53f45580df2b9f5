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

/// How weights are kept: on the CPU those of linear layers and convolutions, on a GPU all of them, and what flows between the layers
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    /// As the checkpoint has them, computed with in f32.
    None,
    /// The fastest on this device: on the CPU `Bf16` if the processor has AMX, otherwise `Int8`; on a GPU `F16`.
    Auto,
    /// As bfloat16; what they are multiplied with is rounded likewise, sums are f32. On processors with AVX512_BF16 or AMX, and on GPUs.
    Bf16,
    /// As 8-bit integers with a scale for each 128 values of a row; what they are multiplied with is quantized likewise. On the CPU only.
    Int8,
    /// As IEEE half precision: three more bits than bfloat16, values up to 65504. On a GPU only.
    F16,
}

impl Quantize {
    /// The names that options use.
    pub const NAMES: &[&str] = &["none", "auto", "bf16", "int8", "f16"];

    /// The value with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::None, Self::Auto, Self::Bf16, Self::Int8, Self::F16].into_iter().find(|it| it.name() == name)
    }

    /// What to say of a name that earlier versions had.
    pub fn replacement(name: &str) -> Option<&'static str> {
        match name {
            "int16" => Some("int16 is gone: use auto, or int8, which is faster"),
            "q8_0" => Some("q8_0 is gone: use int8, which takes as little memory and is faster"),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Auto => "auto",
            Self::Bf16 => "bf16",
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
