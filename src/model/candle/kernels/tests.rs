//! Every fused kernel against its reference, at shapes that leave rests everywhere.

use super::matmul::{Destination, Matrix, multiply_panels};
use super::*;

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f32 / (1u64 << 31) as f32 - 0.5) * 3.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

#[track_caller]
fn check_close(name: &str, fused: &Result<Tensor>, reference: &Result<Tensor>) {
    let (fused, reference) = (fused.as_ref().unwrap(), reference.as_ref().unwrap());
    assert_eq!(fused.dims(), reference.dims(), "{name}");
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (i, (a, b)) in values(fused).iter().zip(values(reference)).enumerate() {
        assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{name}: value {i} is {a}, reference {b}");
    }
}

/// For products of rounded operands.
#[track_caller]
fn check_near(name: &str, got: &Result<Tensor>, exact: &Result<Tensor>, tolerance: f32) {
    let (got, exact) = (got.as_ref().unwrap(), exact.as_ref().unwrap());
    assert_eq!(got.dims(), exact.dims(), "{name}");
    let mean_square = |it: &Tensor| it.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    let relative = (mean_square(&(got - exact).unwrap()) / mean_square(exact)).sqrt();
    assert!(relative < tolerance, "{name}: relative RMS {relative}");
}

#[test]
fn linear_layers() {
    for (rows, n_in, n_out) in [(1, 5, 3), (7, 64, 48), (40, 33, 17), (250, 40, 24), (400, 16, 96)] {
        let (x, w, b) = (random(&[rows, n_in], 1), random(&[n_out, n_in], 2), random(&[n_out], 3));
        let residual = random(&[rows, n_out], 4);
        for (bias, activation, residual) in [
            (None, Activation::None, None),
            (Some(&b), Activation::None, None),
            (Some(&b), Activation::Gelu, None),
            (None, Activation::QuickGelu, None),
            (Some(&b), Activation::None, Some(&residual)),
            (None, Activation::None, Some(&residual)),
        ] {
            let reference = reference::linear(&x, &w, bias, activation, residual);
            let name = format!("linear {rows}x{n_in}x{n_out} {activation:?}");
            check_close(&name, &linear::linear(&x, &w, bias, activation, residual), &reference);
            let packed = PackedMatrix::new(&w, Precision::F32).unwrap();
            let got = linear_packed(&x, &packed, &(0..n_out), bias, activation, residual);
            check_close(&name, &got, &reference);
        }
        let packed = PackedMatrix::new(&w, Precision::F32).unwrap();
        for some in [0..1, n_out - 1..n_out, n_out / 3..n_out - 1] {
            let narrow = |it: &Tensor| it.narrow(0, some.start, some.len()).unwrap();
            check_close(
                &format!("linear {rows}x{n_in}, outputs {some:?}"),
                &linear_packed(&x, &packed, &some, Some(&narrow(&b)), Activation::None, None),
                &reference::linear(&x, &narrow(&w), Some(&narrow(&b)), Activation::None, None),
            );
        }
    }
}

#[test]
fn linear_layers_in_bfloat16() {
    for (rows, n_in, n_out) in [(1, 64, 300), (5, 33, 17), (250, 40, 24)] {
        // As multiples of 1/64 below 4 in magnitude, all values are bfloat16 already.
        let rounded = |it: Tensor| ((it * 32.0).unwrap().round().unwrap() / 32.0).unwrap();
        let (x, w) = (rounded(random(&[rows, n_in], 1)), rounded(random(&[n_out, n_in], 2)));
        let b = random(&[n_out], 3);
        let packed = PackedMatrix::new(&w, Precision::Bf16).unwrap();
        check_close(
            &format!("bfloat16 linear {rows}x{n_in}x{n_out}"),
            &linear_packed(&x, &packed, &(0..n_out), Some(&b), Activation::Gelu, None),
            &reference::linear(&x, &w, Some(&b), Activation::Gelu, None),
        );
    }
}

#[test]
fn linear_layers_in_integers() {
    for (precision, tolerance) in [(Precision::Int16, 1e-3), (Precision::Int8, 3e-2)] {
        for (rows, n_in, n_out) in [(1, 64, 300), (5, 33, 17), (250, 300, 24)] {
            let (x, w, b) = (random(&[rows, n_in], 1), random(&[n_out, n_in], 2), random(&[n_out], 3));
            let packed = PackedMatrix::new(&w, precision).unwrap();
            let got = linear_packed(&x, &packed, &(0..n_out), Some(&b), Activation::None, None);
            let exact = reference::linear(&x, &w, Some(&b), Activation::None, None);
            check_near(&format!("{precision:?} linear {rows}x{n_in}x{n_out}"), &got, &exact, tolerance);
            let got = linear_packed(&x, &packed, &(5..17), None, Activation::None, None);
            let exact = reference::linear(&x, &w.narrow(0, 5, 12).unwrap(), None, Activation::None, None);
            check_near(&format!("{precision:?} linear {rows}x{n_in}, some outputs"), &got, &exact, tolerance);
        }
    }
}

/// `1 + scale * x w^T`
fn product_in_integers(precision: Precision, x: &[f32], w: &[f32], n_in: usize, scale: f32) -> Vec<f32> {
    let (rows, n_out) = (x.len() / n_in, w.len() / n_in);
    let w = Tensor::from_slice(w, (n_out, n_in), &Device::Cpu).unwrap();
    let w = PackedMatrix::new(&w, precision).unwrap();
    let mut out = vec![1.0; rows * n_out];
    let x = Matrix::new(x, rows, n_in, n_in);
    multiply_panels(&mut out, n_out, Destination::Accumulate, scale, x, w.panels());
    out
}

#[test]
fn products_in_integers_are_near_those_of_f32() {
    let values = |len: usize, seed: usize| -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 30.0 - 1.7).collect()
    };
    // Half a step of each factor; of 8 bits, the left one's may be twice as long.
    let half_steps =
        [(Precision::Int16, 0.5 / 2047.0 + 0.5 / 8191.0), (Precision::Int8, 0.5 / 127.0 + 1.0 / 127.0)];
    for (precision, half_steps) in half_steps {
        for (m, k, n) in [(1, 1, 1), (3, 7, 5), (13, 20, 70), (200, 333, 64)] {
            let (x, w) = (values(m * k, 1), values(n * k, 5));
            let got = product_in_integers(precision, &x, &w, k, 0.5);
            let tolerance = 0.5 * k as f32 * 1.7 * 1.7 * half_steps + 1e-5;
            for i in 0..m {
                for j in 0..n {
                    let dot: f32 = (0..k).map(|t| x[i * k + t] * w[j * k + t]).sum();
                    let got = got[i * n + j];
                    assert!(
                        (got - 1.0 - 0.5 * dot).abs() < tolerance,
                        "{precision:?} {m}x{k}x{n} at {i},{j}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_largest_integers_do_not_overflow() {
    // As integers of 8 bits, with room for the sum of two, 3 is between two steps.
    for (precision, tolerance) in [(Precision::Int16, 0.01), (Precision::Int8, 60.0)] {
        for (x, w) in [(3.0, 2.0), (3.0, -2.0), (-3.0, 2.0), (-3.0, -2.0)] {
            let got = product_in_integers(precision, &[x; 1000], &[w; 1000], 1000, 1.0)[0];
            assert!((got - 1.0 - x * w * 1000.0).abs() < tolerance, "{precision:?}: {got}");
        }
    }
}

#[test]
fn zeros_stay_zeros_in_integers_and_what_is_not_finite_is_not_hidden() {
    for (precision, tolerance) in [(Precision::Int16, 0.01), (Precision::Int8, 0.1)] {
        assert_eq!(product_in_integers(precision, &[0.0; 8], &[0.0; 8], 8, 1.0), [1.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let x = [1.0, bad, 1.0, 1.0, 1.0, 1.0];
            let got = product_in_integers(precision, &x, &[1.0, 2.0, 3.0], 3, 1.0);
            assert!(got[0].is_nan() && (got[1] - 7.0).abs() < tolerance, "{precision:?}: {got:?}");
        }
    }
}

/// Blocks of 128 values, of very different sizes but of whole steps: nothing is rounded.
#[test]
fn every_block_of_8_bits_has_its_own_scale() {
    let n_in = 3 * 128;
    let size = |i: usize| [1e-4, 1.0, 300.0][i / 128];
    let x: Vec<f32> =
        (0..n_in).map(|i| size(i) * if i % 128 == 0 { 127.0 } else { -((i % 5) as f32) }).collect();
    let w: Vec<f32> =
        (0..n_in).map(|i| if i % 128 == 0 { 127.0 } else { (i % 7) as f32 } / size(i)).collect();
    let exact: f32 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
    let got = product_in_integers(Precision::Int8, &x, &w, n_in, 1.0)[0] - 1.0;
    assert!((got / exact - 1.0).abs() < 1e-5, "{got}, not {exact}");
}

#[test]
fn feed_forwards() {
    for (rows, n, n_hidden) in [(1, 24, 40), (17, 7, 5), (250, 16, 24), (700, 24, 33)] {
        let x = random(&[rows, n], 1);
        let (w1, b1) = (random(&[n_hidden, n], 2), random(&[n_hidden], 3));
        let (w2, b2) = (random(&[n, n_hidden], 4), random(&[n], 5));
        let (weight, bias) = (random(&[n], 6), random(&[n], 7));
        let packed = |w: &Tensor| PackedMatrix::new(w, Precision::F32).unwrap();
        let layers = PackedFeedForward {
            activation: Activation::Gelu,
            w1: &packed(&w1),
            b1: &b1,
            w2: &packed(&w2),
            b2: &b2,
        };
        for norm in [None, Some(&LayerNormWeights { weight: &weight, bias: &bias, eps: 1e-5 })] {
            let normed =
                norm.map_or(Ok(x.clone()), |it| reference::layer_norm(&x, it.weight, it.bias, it.eps));
            let hidden = reference::linear(&normed.unwrap(), &w1, Some(&b1), Activation::Gelu, None).unwrap();
            check_close(
                &format!("feed_forward {rows}x{n}x{n_hidden}"),
                &feed_forward(&x, norm, &layers),
                &reference::linear(&hidden, &w2, Some(&b2), Activation::None, Some(&x)),
            );
        }
    }
}

#[test]
fn quantized_linear_layers() {
    for (rows, n_in, n_out) in [(1, 32, 5), (3, 96, 300), (16, 64, 7), (60, 64, 48)] {
        let (x, b) = (random(&[rows, n_in], 1), random(&[n_out], 3));
        // Multiples of the step of blocks whose largest value is 127 steps are kept exactly.
        let steps = (random(&[n_out, n_in], 2) * 50.0).unwrap().round().unwrap();
        let is_first = Tensor::arange(0u32, n_in as u32, &Device::Cpu).unwrap();
        let is_first = is_first.to_dtype(candle_core::DType::F32).unwrap();
        let is_first = ((&is_first / 32.0).unwrap().floor().unwrap() * 32.0).unwrap().eq(&is_first).unwrap();
        let is_first = is_first.broadcast_as((n_out, n_in)).unwrap();
        let largest = Tensor::full(127.0f32, (n_out, n_in), &Device::Cpu).unwrap();
        let w = (is_first.where_cond(&largest, &steps).unwrap() * 0.01).unwrap();
        let q = QuantizedMatrix::quantize(&w).unwrap();
        let residual = random(&[rows, n_out], 4);
        for (bias, activation, residual) in [
            (None, Activation::None, None),
            (Some(&b), Activation::Gelu, None),
            (Some(&b), Activation::None, Some(&residual)),
        ] {
            check_close(
                &format!("linear_q8 {rows}x{n_in}x{n_out} {activation:?}"),
                &linear_q8(&x, &q, &(0..n_out), bias, activation, residual),
                &reference::linear(&x, &w, bias, activation, residual),
            );
        }
        check_close(
            "linear_q8, some rows",
            &linear_q8(&x, &q, &(2..5), None, Activation::None, None),
            &reference::linear(&x, &w.narrow(0, 2, 3).unwrap(), None, Activation::None, None),
        );
    }
    assert!(QuantizedMatrix::quantize(&random(&[2, 33], 1)).is_err());
}

#[test]
fn layer_norms() {
    for (rows, n) in [(1, 1), (3, 7), (200, 192), (5, 33)] {
        let (x, w, b) = (random(&[rows, n], 1), random(&[n], 2), random(&[n], 3));
        check_close(
            &format!("layer_norm {rows}x{n}"),
            &linear::layer_norm(&x, &w, &b, 1e-5),
            &reference::layer_norm(&x, &w, &b, 1e-5),
        );
    }
}

#[test]
fn convolutions() {
    for (batch, height, width, n_in, n_out, kernel, stride, padding) in [
        (1, 32, 40, 3, 16, 7, 4, 3),
        (2, 11, 9, 8, 12, 3, 2, 1),
        (1, 5, 6, 4, 8, 3, 1, 1),
        (1, 1, 1, 2, 3, 3, 1, 1),
        (1, 1, 2, 3, 4, 7, 4, 3),
    ] {
        let conv = Conv2d { kernel, stride, padding };
        let x = random(&[batch, height, width, n_in], 1);
        let (w, b) = (random(&[n_out, kernel * kernel * n_in], 2), random(&[n_out], 3));
        check_close(
            &format!("conv2d {height}x{width} {conv:?}"),
            &conv::conv2d(&x, &w, &b, conv),
            &reference::conv2d(&x, &w, &b, conv),
        );
        let packed = PackedMatrix::new(&w, Precision::F32).unwrap();
        let name = format!("packed conv2d {height}x{width} {conv:?}");
        check_close(&name, &conv::conv2d_packed(&x, &packed, &b, conv), &conv::conv2d(&x, &w, &b, conv));
    }
}

#[test]
fn depthwise_convolutions() {
    for (batch, height, width, channels) in [(1, 1, 1, 1), (2, 5, 7, 40), (1, 24, 24, 64), (1, 2, 9, 31)] {
        let x = random(&[batch, height, width, channels], 1);
        let (w, b) = (random(&[9, channels], 2), random(&[channels], 3));
        check_close(
            &format!("depthwise {height}x{width}x{channels}"),
            &conv::depthwise_3x3_residual(&x, &w, &b),
            &reference::depthwise_3x3_residual(&x, &w, &b),
        );
    }
}

#[test]
fn attentions_between_tokens() {
    for (batch, n_queries, n_keys, channels, n_heads, visible) in [
        (1, 1, 1, 4, 1, Visible::First(vec![1])),
        (3, 17, 17, 24, 3, Visible::First(vec![17, 5, 1])),
        (2, 60, 60, 64, 4, Visible::First(vec![60, 31])),
        (1, 270, 270, 16, 2, Visible::First(vec![269])),
        (1, 200, 203, 8, 1, Visible::Causal { offset: 3 }),
        (2, 3, 70, 24, 2, Visible::First(vec![70, 33])),
        (1, 64, 500, 64, 1, Visible::First(vec![500])),
        (1, 6, 6, 8, 2, Visible::Causal { offset: 0 }),
        (2, 3, 12, 8, 2, Visible::Causal { offset: 4 }),
    ] {
        let q = random(&[batch, n_queries, channels], 1);
        let (k, v) = (random(&[batch, n_keys, channels], 2), random(&[batch, n_keys, channels], 3));
        check_close(
            &format!("attention {n_queries}x{n_keys} {visible:?}"),
            &attention::attention(&q, &k, &v, n_heads, &visible, Precision::F32),
            &reference::attention(&q, &k, &v, n_heads, &visible),
        );
    }
}

/// As with f32 where there is no faster way.
#[test]
fn attentions_between_many_tokens_with_rounded_operands() {
    for (batch, n_queries, n_keys, channels, n_heads, visible) in [
        (2, 300, 300, 128, 2, Visible::First(vec![300, 261])),
        (1, 70, 601, 40, 1, Visible::First(vec![601])),
        (1, 33, 545, 96, 3, Visible::Causal { offset: 512 }),
        (1, 5, 1024, 32, 1, Visible::First(vec![1000])),
    ] {
        let q = random(&[batch, n_queries, channels], 1);
        let (k, v) = (random(&[batch, n_keys, channels], 2), random(&[batch, n_keys, channels], 3));
        for (precision, tolerance) in
            [(Precision::Bf16, 1e-2), (Precision::Int16, 1e-3), (Precision::Int8, 1e-3)]
        {
            check_near(
                &format!("attention {n_queries}x{n_keys} {visible:?} {precision:?}"),
                &attention::attention(&q, &k, &v, n_heads, &visible, precision),
                &reference::attention(&q, &k, &v, n_heads, &visible),
                tolerance,
            );
        }
    }
}

#[test]
fn attentions_in_windows_and_between_channels() {
    for (batch, height, width, channels, n_heads, window) in
        [(1, 3, 3, 4, 1, 3), (2, 8, 12, 24, 3, 4), (1, 24, 12, 32, 2, 12), (2, 5, 15, 64, 2, 5)]
    {
        let qkv = random(&[batch, height, width, 3 * channels], 1);
        check_close(
            &format!("window_attention {height}x{width}"),
            &attention::window_attention(&qkv, n_heads, window),
            &reference::window_attention(&qkv, n_heads, window),
        );
        let qkv = qkv.reshape((batch, height * width, 3 * channels)).unwrap();
        check_close(
            &format!("channel_attention {height}x{width}"),
            &channel_attention::channel_attention(&qkv, n_heads),
            &reference::channel_attention(&qkv, n_heads),
        );
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = random(&[2, 5, 5, 8], 1);
    assert!(linear::linear(&x, &random(&[4, 7], 1), None, Activation::None, None).is_err());
    assert!(attention::window_attention(&random(&[1, 5, 6, 6], 1), 1, 3).is_err());
    let q = random(&[1, 2, 4], 1);
    assert!(attention::attention(&q, &q, &q, 2, &Visible::First(vec![3]), Precision::F32).is_err());
    assert!(attention::attention(&q, &q, &q, 2, &Visible::Causal { offset: 1 }, Precision::F32).is_err());
}
