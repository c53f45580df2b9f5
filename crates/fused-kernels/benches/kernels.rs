//! Matrix products of Florence-2, OWLv2 and decoders of 2 to 8 billion parameters, feed-forward blocks and attentions: the kernels here
//! against what other crates offer.
//!
//!     RAYON_NUM_THREADS=1 cargo bench -p fused-kernels --bench kernels -- [ROUNDS] [SHAPE]
//!
//! Prints for each contender the median and the least CPU time of the rounds in milliseconds, in each of which every contender runs in
//! turn, and its relative RMS deviation from f32. `FUSED_KERNELS_MAX_ISA` caps the kernels here, `MISTRALRS_FORCE_AVX2=1` or
//! `MISTRALRS_FORCE_AVXVNNI=1` candle's quantized products; the `gemm` crate has AVX2 only without its feature `x86-v4`.

#![expect(clippy::unwrap_used, reason = "shapes that do not fit end the benchmark")]

use std::hint::black_box;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{D, Device, Module as _, Tensor};
use fused_kernels::{
    Activation, AttentionMask, AttentionShape, Epilogue, FeedForward, LayerNorm, PackedMatrix, Precision,
    attention, channel_attention, feed_forward, linear, window_attention,
};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

/// Name, rows of x, inner dimension, outputs.
const SHAPES: &[(&str, usize, usize, usize)] = &[
    ("Florence-2 base, stage 1 qkv", 36864, 128, 384),
    ("Florence-2 base, stage 3 qkv", 2304, 512, 1536),
    ("Florence-2 base, stage 3 fc1", 2304, 512, 2048),
    ("Florence-2 base, stage 3 fc2", 2304, 2048, 512),
    ("Florence-2 base, encoder fc1", 592, 768, 3072),
    ("Florence-2 base, decoder fc1, 3 beams", 3, 768, 3072),
    ("Florence-2 base, LM head", 1, 768, 51289),
    ("Florence-2 large, stage 3 fc1", 2304, 1024, 4096),
    ("Florence-2 large, stage 3 fc2", 2304, 4096, 1024),
    ("Florence-2 large, LM head", 1, 1024, 51289),
    ("OWLv2 base/16, q, k, v, out", 3601, 768, 768),
    ("OWLv2 base/16, fc1", 3601, 768, 3072),
    ("OWLv2 base/16, fc2", 3601, 3072, 768),
    ("2B decoder, one token", 1, 2048, 6144),
    ("8B decoder, one token", 1, 4096, 12288),
    ("2B decoder, prefill 300", 300, 2048, 6144),
    ("2B decoder, prefill 1024", 1024, 2048, 6144),
    ("8B decoder, prefill 300", 300, 4096, 12288),
    ("8B decoder, prefill 1024", 1024, 4096, 12288),
];

/// Tokens, channels and hidden channels of `x + fc2(gelu(fc1(norm(x))))`.
const FEED_FORWARDS: &[(&str, usize, usize, usize)] = &[
    ("Florence-2 base, stage 3 feed-forward block", 2304, 512, 2048),
    ("OWLv2 base/16, feed-forward block", 3601, 768, 3072),
];

/// Computes; hands the result out when asked to, which may cost a copy.
type Run<'a> = Box<dyn FnMut(bool) -> Vec<f32> + 'a>;
type Contender<'a> = (&'static str, Run<'a>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let n_rounds: usize = arguments.first().map_or(Ok(5), |n| n.parse())?;
    let wanted = arguments.get(1).map_or("", String::as_str);
    println!("{} threads, {n_rounds} rounds, CPU ms", rayon::current_num_threads());
    for (name, m, k, n) in SHAPES.iter().filter(|it| it.0.contains(wanted)) {
        let (x, w) = (values(m * k, 1), values(n * k, 2));
        report(&format!("{name} | {m}x{k}x{n}"), &mut products(&x, &w, *m, *k, *n)?, n_rounds);
    }
    for (name, m, n, hidden) in FEED_FORWARDS.iter().filter(|it| it.0.contains(wanted)) {
        report(&format!("{name} | {m}x{n}x{hidden}"), &mut feed_forwards(*m, *n, *hidden)?, n_rounds);
    }
    if "attention".contains(wanted) {
        report("OWLv2 base/16, attention | 3601, 12 heads of 64", &mut attentions(3601, 12, 64)?, n_rounds);
        report(
            "Florence-2 base, encoder attention | 592, 12 heads of 64",
            &mut attentions(592, 12, 64)?,
            n_rounds,
        );
        let windows = &mut window_attentions(48, 512, 16, 12)?;
        report(
            "Florence-2 base, stage 3 window attention | 48x48x512, 16 heads, windows of 12",
            windows,
            n_rounds,
        );
        let channels = &mut channel_attentions(2304, 512)?;
        report("Florence-2 base, stage 3 channel attention | 2304x512, 16 groups", channels, n_rounds);
    }
    Ok(())
}

fn products<'a>(
    x: &'a [f32],
    w: &'a [f32],
    m: usize,
    k: usize,
    n: usize,
) -> candle_core::Result<Vec<Contender<'a>>> {
    let xt = Tensor::from_slice(x, (m, k), &Device::Cpu)?;
    let wt = Tensor::from_slice(w, (n, k), &Device::Cpu)?;
    let mut all: Vec<Contender<'a>> = vec![("gemm f32", Box::new(move |_| gemm_f32(x, w, m, k, n)))];
    let executor: GemmExecutor<f32, f32, f32> = GemmExecutor::new();
    let b = executor.prepack_b(NdTensorView::from_data([n, k], w).transposed());
    all.push((
        "rten f32",
        Box::new(move |_| {
            let mut out = vec![0.0; m * n];
            let a = GemmInputA::Unpacked(NdTensorView::from_data([m, k], x));
            executor.gemm(&mut out, a, GemmInputB::Packed(&b), GemmOptions::default()).unwrap();
            out
        }),
    ));
    all.push(("rten int8", rten_int8(x, w, m, k, n)));
    for (name, dtype) in [("candle Q8_0", GgmlDType::Q8_0), ("candle Q4K", GgmlDType::Q4K)] {
        // Blocks of 256 along a row; without that its products are scalar and take seconds.
        if k.is_multiple_of(256) && n.is_multiple_of(16) {
            let matmul = QMatMul::from_qtensor(QTensor::quantize(&wt, dtype)?)?;
            let x = xt.clone();
            all.push((name, Box::new(move |copy| to_vec(&matmul.forward(&x), copy))));
        }
    }
    for (name, precision) in precisions() {
        let w = PackedMatrix::new(w, n, k, precision);
        let epilogue = Epilogue { bias: None, activation: Activation::None, residual: None };
        all.push((
            name,
            Box::new(move |_| {
                let mut out = vec![0.0; m * n];
                linear(&mut out, x, &w, &(0..n), epilogue);
                out
            }),
        ));
    }
    Ok(all)
}

/// The precisions that this processor has instructions for.
fn precisions() -> impl Iterator<Item = (&'static str, Precision)> {
    [("ours f32", Precision::F32), ("ours bf16", Precision::Bf16), ("ours int8", Precision::Int8)]
        .into_iter()
        .filter(|(_, precision)| precision.is_supported())
}

fn gemm_f32(x: &[f32], w: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    let parallelism = match rayon::current_num_threads() {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    let (row, inner) = (n as isize, k as isize);
    // SAFETY: the slices have these shapes.
    #[expect(unsafe_code, reason = "the crate's interface")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row,
            false,
            x.as_ptr(),
            1,
            inner,
            w.as_ptr(),
            inner,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
    out
}

/// With what a caller has to add to the product of integers: quantizing rows of x, and scaling the sums.
fn rten_int8<'a>(x: &'a [f32], w: &[f32], m: usize, k: usize, n: usize) -> Run<'a> {
    let mut quantized_w = vec![0i8; n * k];
    let mut w_scales = vec![0.0; n];
    for ((row, out), scale) in w.chunks_exact(k).zip(quantized_w.chunks_exact_mut(k)).zip(&mut w_scales) {
        *scale = largest_magnitude(row) / 127.0;
        out.iter_mut().zip(row).for_each(|(out, value)| *out = (value / *scale).round() as i8);
    }
    let executor: GemmExecutor<u8, i8, i32> = GemmExecutor::new();
    let b = executor.prepack_b(NdTensorView::from_data([n, k], &quantized_w[..]).transposed());
    let zero_points = vec![128u8; m];
    let (mut quantized_x, mut x_scales, mut sums) = (vec![0u8; m * k], vec![0.0; m], vec![0i32; m * n]);
    Box::new(move |_| {
        for ((row, out), scale) in x.chunks_exact(k).zip(quantized_x.chunks_exact_mut(k)).zip(&mut x_scales) {
            *scale = largest_magnitude(row) / 127.0;
            let inverse = 1.0 / *scale;
            // 1.5 * 2^23 rounds to an integer, whose low byte is in the low bits.
            let quantize = |value: &f32| (value * inverse + (12_582_912.0 + 128.0)).to_bits() as u8;
            out.iter_mut().zip(row).for_each(|(out, value)| *out = quantize(value));
        }
        let a = GemmInputA::Unpacked(NdTensorView::from_data([m, k], &quantized_x[..]));
        let a_quant = Some(rten_gemm::QuantParams { zero_point: &zero_points[..] });
        let options = GemmOptions { a_quant, ..GemmOptions::default() };
        executor.gemm(&mut sums, a, GemmInputB::Packed(&b), options).unwrap();
        let mut out = vec![0.0; m * n];
        for ((out, sums), x_scale) in out.chunks_exact_mut(n).zip(sums.chunks_exact(n)).zip(&x_scales) {
            for ((out, sum), w_scale) in out.iter_mut().zip(sums).zip(&w_scales) {
                *out = *sum as f32 * (x_scale * w_scale);
            }
        }
        out
    })
}

fn largest_magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| if value.abs() > largest { value.abs() } else { largest })
}

fn feed_forwards<'a>(m: usize, n: usize, hidden: usize) -> candle_core::Result<Vec<Contender<'a>>> {
    let (x, w1, b1) = (values(m * n, 1), values(hidden * n, 2), values(hidden, 3));
    let (w2, b2, weight, bias) = (values(n * hidden, 4), values(n, 5), values(n, 6), values(n, 7));
    let mut all: Vec<Contender<'a>> = vec![("candle f32", {
        let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        let (x, w1, b1) = (tensor(&x, &[m, n])?, tensor(&w1, &[hidden, n])?, tensor(&b1, &[hidden])?);
        let (w2, b2) = (tensor(&w2, &[n, hidden])?, tensor(&b2, &[n])?);
        let (weight, bias) = (tensor(&weight, &[n])?, tensor(&bias, &[n])?);
        Box::new(move |copy| {
            let run = || {
                let normed = candle_nn::ops::layer_norm(&x, &weight, &bias, 1e-5)?;
                let inner = normed.matmul(&w1.t()?)?.broadcast_add(&b1)?.gelu_erf()?;
                inner.matmul(&w2.t()?)?.broadcast_add(&b2)? + &x
            };
            to_vec(&run(), copy)
        })
    })];
    for (name, precision) in precisions() {
        let (w1, w2) =
            (PackedMatrix::new(&w1, hidden, n, precision), PackedMatrix::new(&w2, n, hidden, precision));
        let (x, b1, b2, weight, bias) = (x.clone(), b1.clone(), b2.clone(), weight.clone(), bias.clone());
        all.push((
            name,
            Box::new(move |_| {
                let mut out = vec![0.0; m * n];
                let norm = LayerNorm { weight: &weight, bias: &bias, eps: 1e-5 };
                let layers = FeedForward { activation: Activation::Gelu, w1: &w1, b1: &b1, w2: &w2, b2: &b2 };
                feed_forward(&mut out, &x, Some(norm), &layers);
                out
            }),
        ));
    }
    Ok(all)
}

/// All tokens to all tokens.
fn attentions<'a>(n: usize, n_heads: usize, head_dim: usize) -> candle_core::Result<Vec<Contender<'a>>> {
    let qkv = [1, 2, 3].map(|seed| values(n * n_heads * head_dim, seed));
    let tensors = qkv.each_ref().map(|it| Tensor::from_slice(it, (1, n, n_heads, head_dim), &Device::Cpu));
    let [q, k, v] = tensors;
    let (q, k, v) = (q?, k?, v?);
    let mut all: Vec<Contender<'a>> = vec![(
        "candle f32",
        Box::new(move |copy| {
            let heads = |x: &Tensor| x.transpose(1, 2)?.contiguous();
            let run = || attend(&heads(&q)?, &heads(&k)?, &heads(&v)?)?.transpose(1, 2)?.contiguous();
            to_vec(&run(), copy)
        }),
    )];
    let shape = AttentionShape { batch: 1, n_queries: n, n_keys: n, n_heads, head_dim };
    for (name, precision) in precisions().filter(|it| it.1 != Precision::Int8) {
        let qkv = qkv.clone();
        all.push((
            name,
            Box::new(move |_| {
                let [q, k, v] = &qkv;
                let mut out = vec![0.0; q.len()];
                attention(&mut out, [q, k, v], shape, &AttentionMask::Lengths(vec![n]), precision);
                out
            }),
        ));
    }
    Ok(all)
}

/// q, k, v [.., N, d].
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
    let scores = (q.matmul(&k.t()?)? / (q.dim(D::Minus1)? as f64).sqrt())?;
    candle_nn::ops::softmax_last_dim(&scores)?.matmul(v)
}

/// Inside windows of a map [side, side, channels].
fn window_attentions<'a>(
    side: usize,
    channels: usize,
    n_heads: usize,
    window: usize,
) -> candle_core::Result<Vec<Contender<'a>>> {
    let qkv = values(side * side * 3 * channels, 1);
    let n = side / window;
    let x = Tensor::from_slice(&qkv, (n, window, n, window * 3 * channels), &Device::Cpu)?;
    Ok(vec![
        (
            "candle f32",
            Box::new(move |copy| {
                let run = || {
                    let d = channels / n_heads;
                    let x =
                        x.transpose(1, 2)?.contiguous()?.reshape((n * n, window * window, 3, n_heads, d))?;
                    let part = |i: usize| x.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
                    attend(&part(0)?, &part(1)?, &part(2)?)?
                        .transpose(1, 2)?
                        .contiguous()?
                        .reshape((n, n, window, window * channels))?
                        .transpose(1, 2)?
                        .contiguous()
                };
                to_vec(&run(), copy)
            }),
        ),
        (
            "ours f32",
            Box::new(move |_| {
                let mut out = vec![0.0; qkv.len() / 3];
                window_attention(&mut out, &qkv, [side, side, channels], n_heads, window);
                out
            }),
        ),
    ])
}

/// Between the channels of groups of 32.
fn channel_attentions<'a>(n: usize, channels: usize) -> candle_core::Result<Vec<Contender<'a>>> {
    let (qkv, n_groups) = (values(n * 3 * channels, 1), channels / 32);
    let x = Tensor::from_slice(&qkv, (n, 3, n_groups, 32), &Device::Cpu)?;
    Ok(vec![
        (
            "candle f32",
            Box::new(move |copy| {
                let part = |i: usize| x.narrow(1, i, 1)?.squeeze(1)?.permute((1, 2, 0))?.contiguous();
                let run = || attend(&part(0)?, &part(1)?, &part(2)?)?.permute((2, 0, 1))?.contiguous();
                to_vec(&run(), copy)
            }),
        ),
        (
            "ours f32",
            Box::new(move |_| {
                let mut out = vec![0.0; qkv.len() / 3];
                channel_attention(&mut out, &qkv, n, channels, n_groups);
                out
            }),
        ),
    ])
}

/// Runs every contender once in each round; prints medians.
fn report(what: &str, contenders: &mut [Contender<'_>], n_rounds: usize) {
    let exact = (contenders[0].1)(true);
    for (_, run) in contenders.iter_mut() {
        run(false);
    }
    let repeats = repeats(&mut contenders[0].1);
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..n_rounds {
        for ((_, run), times) in contenders.iter_mut().zip(&mut times) {
            let start = cpu_ms();
            for _ in 0..repeats {
                black_box(run(false));
            }
            times.push((cpu_ms() - start) / repeats as f64);
        }
    }
    println!("\n{what}");
    for ((name, run), times) in contenders.iter_mut().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let deviation = deviation(&run(true), &exact);
        println!("| {name} | {:.3} | {:.3} | {deviation:.4} |", times[times.len() / 2], times[0]);
    }
}

/// So many that a round of the first contender takes some 20 ms.
fn repeats(run: &mut Run<'_>) -> usize {
    let start = cpu_ms();
    black_box(run(false));
    ((20.0 / (cpu_ms() - start).max(0.01)) as usize).clamp(1, 100)
}

/// Relative RMS.
fn deviation(got: &[f32], exact: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|it| it * it).sum::<f64>();
    let errors = squares(&mut got.iter().zip(exact).map(|(a, b)| f64::from(a - b)));
    (errors / squares(&mut exact.iter().take(got.len()).map(|it| f64::from(*it)))).sqrt()
}

fn to_vec(out: &candle_core::Result<Tensor>, copy: bool) -> Vec<f32> {
    let out = out.as_ref().unwrap();
    if !copy {
        return Vec::new();
    }
    out.flatten_all().and_then(|it| it.to_vec1()).unwrap()
}

/// In -1 .. 1, evenly.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// User and system time of this process.
fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
