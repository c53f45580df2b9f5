//! The model and its kernels on an NVIDIA GPU (`cuda:0`) against the CPU and against plain candle operations.
//!
//! ```text
//! cargo test --release --no-default-features --features cuda --test parity_cuda -- --ignored --nocapture --test-threads 1
//! ```
//!
//! Without a GPU these tests fail and say so; plain `cargo test` leaves them out. Differences are relative to the largest value of a
//! tensor (or to 1, if that is larger). f32 means f32: TF32 is off, as everywhere in this program.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod parity_support;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use language_grounding::model::candle::device::DeviceChoice;
use language_grounding::model::candle::florence2::config::Config;
use language_grounding::model::candle::florence2::network::Florence2Network;
use language_grounding::model::candle::florence2::tokenizer::FlorenceTokenizer;
use language_grounding::model::candle::florence2::trace::Trace;
use language_grounding::model::candle::kernels::{
    self, Activation, AttentionMask, Conv2d, NextToken, Precision, attention, channel_attention, conv2d,
    depthwise_3x3_residual, layer_norm, linear, next_token, stock, window_attention,
};
use language_grounding::model::candle::loading::{Checkpoint, read_json};
use language_grounding::model::candle::tabletop::config::DenseHeadConfig;
use language_grounding::model::candle::tabletop::dense_head::{DenseHead, compare};
use language_grounding::model::registry::load;
use language_grounding::model::{KeyedImage, ModelOptions, Quantize, RawTask};
use parity_support::{deviation, expected, fixture_dir, make_image};
use serde_json::Value;

/// How far the GPU's results may be from the CPU's: sums in another order; then 10 and 7 bits in every value between layers, some twice
/// as far as transformers' own results in these types are from those in f32 on this checkpoint (1.8e-2 and 1.4e-1 at most).
const TOLERANCES: [(Quantize, f32); 3] =
    [(Quantize::None, 1e-3), (Quantize::F16, 4e-2), (Quantize::Bf16, 3e-1)];
/// The same for a single kernel; its reference rounds after every operation.
const KERNEL_TOLERANCES: [(DType, f32); 3] = [(DType::F32, 1e-4), (DType::F16, 5e-3), (DType::BF16, 4e-2)];

fn gpu() -> Device {
    match DeviceChoice::Cuda(0).open() {
        Ok((device, _)) => device,
        Err(error) => panic!("these tests need an NVIDIA GPU: {error}"),
    }
}

fn network(device: &Device, quantize: Quantize) -> (Florence2Network, DenseHead) {
    let path = fixture_dir().join("config.json");
    let (config, head) = (Config::open(&path).unwrap(), DenseHeadConfig::open(&path).unwrap());
    let mut checkpoint = Checkpoint::open(&fixture_dir(), device).unwrap();
    checkpoint.quantize(quantize, "cuda:0").unwrap();
    let head = DenseHead::new(&checkpoint.root().at("grounding_head"), &config, head.embed_dim).unwrap();
    let network = Florence2Network::new(&checkpoint.root(), config).unwrap();
    checkpoint.finish().unwrap();
    (network, head)
}

/// Everything the network shows and says about an image of the fixture, in f32 on the CPU, in order.
fn layers(
    (network, head): &(Florence2Network, DenseHead),
    pixels: &Tensor,
    prompt: &[u32],
    ids: &[u32],
) -> Vec<(String, Tensor)> {
    let mut shown = Vec::new();
    let mut show = |name: &str, tensor: &Tensor| shown.push((name.to_owned(), on_cpu(tensor)));
    let mut trace = Trace::to(&mut show);
    let pixels = pixels.to_device(network.device()).unwrap();
    let features = network.encode_image(&pixels, &mut trace).unwrap();
    let encoded = network.encode(&features, &[prompt.to_vec()], &mut trace).unwrap();
    let mut cache = network.start_decoding(&encoded, 0, 1, 32).unwrap();
    // All but the last at once, then the last: both ways of attending.
    let (last, first) = ids.split_last().unwrap();
    network.decode(&mut cache, first, &mut trace).unwrap();
    network.decode(&mut cache, &[*last], &mut trace).unwrap();
    let phrase = head.phrase(&network.encode_text(prompt).unwrap()).unwrap();
    let dense = compare(&head.cells(features.map()).unwrap(), &[phrase]).unwrap();
    shown.push(("dense.logits".into(), on_cpu(&dense.logits)));
    shown.push(("dense.distances".into(), on_cpu(&dense.distances)));
    shown
}

fn on_cpu(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap()
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn every_layer_matches_the_cpu() {
    let gpu = gpu();
    let expected = expected(&fixture_dir());
    let cases: Value = read_json(&fixture_dir().join("cases.json")).unwrap();
    let ids: Vec<u32> = serde_json::from_value(cases["decoder_ids"].clone()).unwrap();
    let prompts: Vec<String> = serde_json::from_value(cases["prompts"].clone()).unwrap();
    let on_the_cpu = network(&Device::Cpu, Quantize::None);
    let config = on_the_cpu.config();
    let tokenizer =
        FlorenceTokenizer::open(&fixture_dir(), config.image_token_id, config.text_config.vocab_size)
            .unwrap();
    for (quantize, tolerance) in TOLERANCES {
        let on_the_gpu = network(&gpu, quantize);
        for image in 0..2 {
            let pixels = &expected[&format!("image{image}.prompt0.pixels")];
            for prompt in &prompts {
                let prompt = tokenizer.encode_prompt(prompt).unwrap();
                let reference = layers(&on_the_cpu, pixels, &prompt, &ids);
                let got = layers(&on_the_gpu, pixels, &prompt, &ids);
                assert_eq!(got.len(), reference.len());
                let mut worst: f32 = 0.0;
                for ((name, got), (_, reference)) in got.iter().zip(&reference) {
                    let difference = deviation(got, reference, name);
                    assert!(
                        difference <= tolerance,
                        "{} image {image}, {name} differs by {difference:e}",
                        quantize.name()
                    );
                    worst = worst.max(difference);
                }
                println!("{} image {image}: {} tensors, worst {worst:.1e}", quantize.name(), got.len());
            }
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn texts_in_f32_are_those_of_the_cpu() {
    let (gpu, cpu) = ("cuda:0", "cpu");
    // Opened first for its sentence when there is none.
    self::gpu();
    let mut models = [gpu, cpu].map(|device| load(&fixture_dir(), &ModelOptions::on(device)).unwrap());
    let tasks = [("CAPTION", None), ("<OPEN_VOCABULARY_DETECTION>", Some("red cup"))];
    for seed in 0..20 {
        let image = make_image(90 + 7 * seed as u32, 60 + 5 * seed as u32, seed);
        for (name, text) in tasks {
            for n_beams in [1, 3] {
                let [got, expected] = models.each_mut().map(|model| {
                    let image = KeyedImage::whole(seed as u64, &image);
                    model.raw_task(image, &RawTask { name, text, n_beams, ..RawTask::default() }).unwrap()
                });
                assert_eq!(got.token_ids, expected.token_ids, "seed {seed}, {name}, {n_beams} beams");
                for (got, expected) in got.log_probs.iter().zip(&expected.log_probs) {
                    assert!((got - expected).abs() < 1e-2, "seed {seed}, {name}: {got}, not {expected}");
                }
            }
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn boxes_of_both_detectors_are_near_those_of_the_cpu() {
    self::gpu();
    let owlv2 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/owlv2");
    for dir in [fixture_dir(), owlv2] {
        let image = make_image(200, 150, 3);
        let scores_on = |device: &str, quantize| {
            let options = ModelOptions { device: device.into(), quantize, ..ModelOptions::default() };
            let mut model = load(&dir, &options).unwrap();
            let found = model.ground(KeyedImage::whole(3, &image), &["red cup"]).unwrap();
            found[0].first().map_or(0.0, |best| best.score)
        };
        let expected = scores_on("cpu", Quantize::None);
        for (quantize, tolerance) in TOLERANCES {
            let got = scores_on("cuda:0", quantize);
            println!("{} {}: best score {got}, CPU {expected}", dir.display(), quantize.name());
            assert!((got - expected).abs() <= tolerance, "{}: {got}, not {expected}", quantize.name());
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Every kernel against its reference on the same GPU, at sizes that leave rests everywhere

struct Kernels {
    gpu: Device,
    dtype: DType,
    tolerance: f32,
}

fn with_every_type(check: impl Fn(&Kernels)) {
    let gpu = gpu();
    for (dtype, tolerance) in KERNEL_TOLERANCES {
        check(&Kernels { gpu: gpu.clone(), dtype, tolerance });
    }
}

impl Kernels {
    fn random(&self, shape: &[usize], seed: u64) -> Tensor {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) as f32 / (1u64 << 31) as f32 - 0.5) * 3.0
            })
            .collect();
        Tensor::from_vec(values, shape, &self.gpu).unwrap().to_dtype(self.dtype).unwrap()
    }

    /// `reference` gets its inputs in f32: what it rounds on its way is not the kernel's mistake.
    #[track_caller]
    fn check(
        &self,
        name: &str,
        inputs: &[Tensor],
        kernel: impl Fn(&[Tensor]) -> Result<Tensor>,
        reference: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) {
        let wide: Vec<Tensor> = inputs.iter().map(|it| it.to_dtype(DType::F32).unwrap()).collect();
        let (got, expected) = (kernel(inputs).unwrap(), reference(&wide).unwrap());
        let name = format!("{name} in {:?}", self.dtype);
        let difference = deviation(&on_cpu(&got), &on_cpu(&expected), &name);
        println!("{name}: {difference:.1e}");
        assert!(difference <= self.tolerance, "{name} differs by {difference:e}");
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn linear_layers_and_norms() {
    with_every_type(|it| {
        for (rows, n_in, n_out) in [(1, 5, 3), (7, 64, 48), (250, 33, 17)] {
            let inputs = [[rows, n_in], [n_out, n_in], [1, n_out], [rows, n_out]];
            let mut inputs: Vec<Tensor> = (1..).zip(inputs).map(|(seed, s)| it.random(&s, seed)).collect();
            inputs[2] = inputs[2].flatten_all().unwrap();
            for activation in [Activation::None, Activation::Gelu, Activation::QuickGelu] {
                for (with_bias, with_residual) in [(false, false), (true, false), (false, true), (true, true)]
                {
                    type Linear =
                        fn(&Tensor, &Tensor, Option<&Tensor>, Activation, Option<&Tensor>) -> Result<Tensor>;
                    let run = |f: Linear| {
                        move |t: &[Tensor]| {
                            let (bias, residual) =
                                (with_bias.then_some(&t[2]), with_residual.then_some(&t[3]));
                            f(&t[0], &t[1], bias, activation, residual)
                        }
                    };
                    let name = format!("linear {rows}x{n_in}x{n_out} {activation:?}");
                    it.check(&name, &inputs, run(linear), run(stock::linear));
                }
            }
        }
        for (rows, n) in [(1, 1), (3, 7), (200, 192), (5, 33)] {
            let inputs = [it.random(&[rows, n], 1), it.random(&[n], 2), it.random(&[n], 3)];
            let name = format!("layer_norm {rows}x{n}");
            it.check(
                &name,
                &inputs,
                |t| layer_norm(&t[0], &t[1], &t[2], 1e-5),
                |t| stock::layer_norm(&t[0], &t[1], &t[2], 1e-5),
            );
        }
    });
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn convolutions() {
    with_every_type(|it| {
        for (batch, height, width, channels, n_out, kernel, stride, padding) in
            [(1, 24, 20, 3, 8, 7, 4, 3), (2, 9, 7, 5, 6, 3, 2, 1), (1, 32, 32, 3, 10, 16, 16, 0)]
        {
            let conv = Conv2d { kernel, stride, padding };
            let inputs = [
                it.random(&[batch, height, width, channels], 1),
                it.random(&[n_out, kernel * kernel * channels], 2),
                it.random(&[n_out], 3),
            ];
            it.check(
                &format!("conv2d {height}x{width} by {kernel}"),
                &inputs,
                |t| conv2d(&t[0], &t[1], &t[2], conv),
                |t| stock::conv2d(&t[0], &t[1], &t[2], conv),
            );
        }
        for (batch, height, width, channels) in [(1, 1, 1, 1), (2, 5, 7, 40), (1, 24, 24, 64), (1, 2, 9, 31)]
        {
            let inputs = [
                it.random(&[batch, height, width, channels], 1),
                it.random(&[9, channels], 2),
                it.random(&[channels], 3),
            ];
            it.check(
                &format!("depthwise {height}x{width}x{channels}"),
                &inputs,
                |t| depthwise_3x3_residual(&t[0], &t[1], &t[2]),
                |t| stock::depthwise_3x3_residual(&t[0], &t[1], &t[2]),
            );
        }
    });
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn attentions() {
    with_every_type(|it| {
        for (batch, n_queries, n_keys, channels, n_heads, visible) in [
            (1, 1, 1, 4, 1, AttentionMask::Lengths(vec![1])),
            (3, 17, 17, 24, 3, AttentionMask::Lengths(vec![17, 5, 1])),
            (1, 600, 600, 128, 2, AttentionMask::Lengths(vec![590])),
            (1, 200, 203, 8, 1, AttentionMask::Causal { offset: 3 }),
            (2, 3, 70, 24, 2, AttentionMask::Lengths(vec![70, 33])),
            (1, 1, 1000, 768, 12, AttentionMask::Lengths(vec![901])),
            (3, 1, 64, 64, 1, AttentionMask::Causal { offset: 40 }),
            (2, 6, 12, 200, 2, AttentionMask::Causal { offset: 4 }),
        ] {
            let inputs = [n_queries, n_keys, n_keys].map(|n| it.random(&[batch, n, channels], 1 + n as u64));
            it.check(
                &format!("attention {n_queries}x{n_keys} {visible:?}"),
                &inputs,
                |t| attention(&t[0], &t[1], &t[2], n_heads, &visible, Precision::F32),
                |t| stock::attention(&t[0], &t[1], &t[2], n_heads, &visible),
            );
        }
        for (batch, height, width, channels, n_heads, window) in
            [(1, 3, 3, 4, 1, 3), (2, 8, 12, 24, 3, 4), (1, 24, 12, 64, 2, 12), (1, 14, 28, 40, 1, 14)]
        {
            let qkv = it.random(&[batch, height, width, 3 * channels], 1);
            it.check(
                &format!("window_attention {height}x{width}"),
                std::slice::from_ref(&qkv),
                |t| window_attention(&t[0], n_heads, window),
                |t| stock::window_attention(&t[0], n_heads, window),
            );
            let qkv = qkv.reshape((batch, height * width, 3 * channels)).unwrap();
            it.check(
                &format!("channel_attention {height}x{width}"),
                &[qkv],
                |t| channel_attention(&t[0], n_heads),
                |t| stock::channel_attention(&t[0], n_heads),
            );
        }
    });
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn next_tokens_and_caches() {
    let it = Kernels { gpu: gpu(), dtype: DType::F32, tolerance: 1e-4 };
    let logits = it.random(&[51_289], 1);
    let best = stock::next_token(&logits, &rule(None, &[])).unwrap().to_vec1::<f32>().unwrap()[0] as u32;
    for (forced, banned) in [(None, vec![]), (None, vec![best, 7]), (Some(5), vec![]), (None, vec![7])] {
        let rule = rule(forced, &banned);
        it.check(
            "next_token",
            std::slice::from_ref(&logits),
            |t| next_token(&t[0], &rule),
            |t| stock::next_token(&t[0], &rule),
        );
    }
    // What the decoder's caches rely on: a slice is set in place, in every type.
    with_every_type(|it| {
        let (cache, step) = (it.random(&[3, 9, 20], 1), it.random(&[3, 2, 20], 2));
        cache.slice_set(&step, 1, 5).unwrap();
        let set = cache.narrow(1, 5, 2).unwrap().contiguous().unwrap();
        it.check("slice_set", &[set, step], |t| Ok(t[0].clone()), |t| Ok(t[1].clone()));
    });
}

fn rule(forced: Option<u32>, banned: &[u32]) -> NextToken<'_> {
    NextToken { forced, banned, fallback: 2, copied: 50_269..51_269 }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn shapes_that_do_not_fit_are_errors() {
    let it = Kernels { gpu: gpu(), dtype: DType::F32, tolerance: 0.0 };
    let x = it.random(&[2, 5, 5, 8], 1);
    assert!(linear(&x, &it.random(&[4, 7], 1), None, Activation::None, None).is_err());
    assert!(linear(&x, &it.random(&[4, 8], 1), Some(&it.random(&[5], 1)), Activation::None, None).is_err());
    assert!(window_attention(&it.random(&[1, 5, 6, 6], 1), 1, 3).is_err());
    let q = it.random(&[1, 2, 4], 1);
    assert!(attention(&q, &q, &q, 2, &AttentionMask::Lengths(vec![3]), Precision::F32).is_err());
    assert!(attention(&q, &q, &q, 2, &AttentionMask::Causal { offset: 1 }, Precision::F32).is_err());
    let half = q.to_dtype(DType::F16).unwrap();
    assert!(
        kernels::attention(&q, &half, &half, 2, &AttentionMask::Lengths(vec![2]), Precision::F32).is_err()
    );
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_network_made_on_one_thread_runs_on_others() {
    let gpu = gpu();
    let expected: BTreeMap<String, Tensor> = expected(&fixture_dir());
    let (network, _) = network(&gpu, Quantize::None);
    let pixels = expected["image0.prompt0.pixels"].to_device(&gpu).unwrap();
    let look = || {
        let features = network.encode_image(&pixels, &mut Trace::off()).unwrap();
        let encoded = network.encode(&features, &[vec![0, 5, 6, 2]], &mut Trace::off()).unwrap();
        on_cpu(&encoded.states)
    };
    let first = look();
    for _ in 0..4 {
        let again = std::thread::scope(|scope| scope.spawn(look).join().unwrap());
        assert_eq!(deviation(&again, &first, "encoder"), 0.0);
    }
}
