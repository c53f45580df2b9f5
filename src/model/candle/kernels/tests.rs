//! Every fused kernel against its reference, at shapes that leave rests everywhere.

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
            let reference = stock::linear(&x, &w, bias, activation, residual);
            let name = format!("linear {rows}x{n_in}x{n_out} {activation:?}");
            check_close(&name, &linear(&x, &w, bias, activation, residual), &reference);
            let packed = pack(&w, Precision::F32).unwrap();
            let got = linear_packed(&x, &packed, &(0..n_out), bias, activation, residual);
            check_close(&name, &got, &reference);
        }
        let packed = pack(&w, Precision::F32).unwrap();
        for some in [0..1, n_out - 1..n_out, n_out / 3..n_out - 1] {
            let narrow = |it: &Tensor| it.narrow(0, some.start, some.len()).unwrap();
            check_close(
                &format!("linear {rows}x{n_in}, outputs {some:?}"),
                &linear_packed(&x, &packed, &some, Some(&narrow(&b)), Activation::None, None),
                &stock::linear(&x, &narrow(&w), Some(&narrow(&b)), Activation::None, None),
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
        let packed = pack(&w, Precision::Bf16).unwrap();
        check_close(
            &format!("bfloat16 linear {rows}x{n_in}x{n_out}"),
            &linear_packed(&x, &packed, &(0..n_out), Some(&b), Activation::Gelu, None),
            &stock::linear(&x, &w, Some(&b), Activation::Gelu, None),
        );
    }
}

#[test]
fn linear_layers_in_integers() {
    for (precision, tolerance) in [(Precision::Int8, 3e-2)] {
        for (rows, n_in, n_out) in [(1, 64, 300), (5, 33, 17), (250, 300, 24)] {
            let (x, w, b) = (random(&[rows, n_in], 1), random(&[n_out, n_in], 2), random(&[n_out], 3));
            let packed = pack(&w, precision).unwrap();
            let got = linear_packed(&x, &packed, &(0..n_out), Some(&b), Activation::None, None);
            let exact = stock::linear(&x, &w, Some(&b), Activation::None, None);
            check_near(&format!("{precision:?} linear {rows}x{n_in}x{n_out}"), &got, &exact, tolerance);
            let got = linear_packed(&x, &packed, &(5..17), None, Activation::None, None);
            let exact = stock::linear(&x, &w.narrow(0, 5, 12).unwrap(), None, Activation::None, None);
            check_near(&format!("{precision:?} linear {rows}x{n_in}, some outputs"), &got, &exact, tolerance);
        }
    }
}

#[test]
fn feed_forwards() {
    for (rows, n, n_hidden) in [(1, 24, 40), (17, 7, 5), (250, 16, 24), (700, 24, 33)] {
        let x = random(&[rows, n], 1);
        let (w1, b1) = (random(&[n_hidden, n], 2), random(&[n_hidden], 3));
        let (w2, b2) = (random(&[n, n_hidden], 4), random(&[n], 5));
        let (weight, bias) = (random(&[n], 6), random(&[n], 7));
        let packed = |w: &Tensor| pack(w, Precision::F32).unwrap();
        let layers = PackedFeedForward {
            activation: Activation::Gelu,
            w1: &packed(&w1),
            b1: &b1,
            w2: &packed(&w2),
            b2: &b2,
        };
        for norm in [None, Some(&LayerNormWeights { weight: &weight, bias: &bias, eps: 1e-5 })] {
            let normed = norm.map_or(Ok(x.clone()), |it| stock::layer_norm(&x, it.weight, it.bias, it.eps));
            let hidden = stock::linear(&normed.unwrap(), &w1, Some(&b1), Activation::Gelu, None).unwrap();
            check_close(
                &format!("feed_forward {rows}x{n}x{n_hidden}"),
                &feed_forward(&x, norm, &layers),
                &stock::linear(&hidden, &w2, Some(&b2), Activation::None, Some(&x)),
            );
        }
    }
}

#[test]
fn layer_norms() {
    for (rows, n) in [(1, 1), (3, 7), (200, 192), (5, 33)] {
        let (x, w, b) = (random(&[rows, n], 1), random(&[n], 2), random(&[n], 3));
        check_close(
            &format!("layer_norm {rows}x{n}"),
            &layer_norm(&x, &w, &b, 1e-5),
            &stock::layer_norm(&x, &w, &b, 1e-5),
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
            &conv2d(&x, &w, &b, conv),
            &stock::conv2d(&x, &w, &b, conv),
        );
        let packed = pack(&w, Precision::F32).unwrap();
        let name = format!("packed conv2d {height}x{width} {conv:?}");
        check_close(&name, &conv2d_packed(&x, &packed, &b, conv), &conv2d(&x, &w, &b, conv));
    }
}

#[test]
fn depthwise_convolutions() {
    for (batch, height, width, channels) in [(1, 1, 1, 1), (2, 5, 7, 40), (1, 24, 24, 64), (1, 2, 9, 31)] {
        let x = random(&[batch, height, width, channels], 1);
        let (w, b) = (random(&[9, channels], 2), random(&[channels], 3));
        check_close(
            &format!("depthwise {height}x{width}x{channels}"),
            &depthwise_3x3_residual(&x, &w, &b),
            &stock::depthwise_3x3_residual(&x, &w, &b),
        );
    }
}

#[test]
fn attentions_between_tokens() {
    for (batch, n_queries, n_keys, channels, n_heads, visible) in [
        (1, 1, 1, 4, 1, AttentionMask::Lengths(vec![1])),
        (3, 17, 17, 24, 3, AttentionMask::Lengths(vec![17, 5, 1])),
        (2, 60, 60, 64, 4, AttentionMask::Lengths(vec![60, 31])),
        (1, 270, 270, 16, 2, AttentionMask::Lengths(vec![269])),
        (1, 200, 203, 8, 1, AttentionMask::Causal { offset: 3 }),
        (2, 3, 70, 24, 2, AttentionMask::Lengths(vec![70, 33])),
        (1, 64, 500, 64, 1, AttentionMask::Lengths(vec![500])),
        (1, 6, 6, 8, 2, AttentionMask::Causal { offset: 0 }),
        (2, 3, 12, 8, 2, AttentionMask::Causal { offset: 4 }),
    ] {
        let q = random(&[batch, n_queries, channels], 1);
        let (k, v) = (random(&[batch, n_keys, channels], 2), random(&[batch, n_keys, channels], 3));
        check_close(
            &format!("attention {n_queries}x{n_keys} {visible:?}"),
            &attention(&q, &k, &v, n_heads, &visible, Precision::F32),
            &stock::attention(&q, &k, &v, n_heads, &visible),
        );
    }
}

/// As with f32 where there is no faster way.
#[test]
fn attentions_between_many_tokens_with_rounded_operands() {
    for (batch, n_queries, n_keys, channels, n_heads, visible) in [
        (2, 300, 300, 128, 2, AttentionMask::Lengths(vec![300, 261])),
        (1, 70, 601, 40, 1, AttentionMask::Lengths(vec![601])),
        (1, 33, 545, 96, 3, AttentionMask::Causal { offset: 512 }),
        (1, 5, 1024, 32, 1, AttentionMask::Lengths(vec![1000])),
    ] {
        let q = random(&[batch, n_queries, channels], 1);
        let (k, v) = (random(&[batch, n_keys, channels], 2), random(&[batch, n_keys, channels], 3));
        for (precision, tolerance) in [(Precision::Bf16, 1e-2), (Precision::Int8, 1e-3)] {
            check_near(
                &format!("attention {n_queries}x{n_keys} {visible:?} {precision:?}"),
                &attention(&q, &k, &v, n_heads, &visible, precision),
                &stock::attention(&q, &k, &v, n_heads, &visible),
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
            &window_attention(&qkv, n_heads, window),
            &stock::window_attention(&qkv, n_heads, window),
        );
        let qkv = qkv.reshape((batch, height * width, 3 * channels)).unwrap();
        check_close(
            &format!("channel_attention {height}x{width}"),
            &channel_attention(&qkv, n_heads),
            &stock::channel_attention(&qkv, n_heads),
        );
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = random(&[2, 5, 5, 8], 1);
    assert!(linear(&x, &random(&[4, 7], 1), None, Activation::None, None).is_err());
    assert!(window_attention(&random(&[1, 5, 6, 6], 1), 1, 3).is_err());
    let q = random(&[1, 2, 4], 1);
    assert!(attention(&q, &q, &q, 2, &AttentionMask::Lengths(vec![3]), Precision::F32).is_err());
    assert!(attention(&q, &q, &q, 2, &AttentionMask::Causal { offset: 1 }, Precision::F32).is_err());
}
