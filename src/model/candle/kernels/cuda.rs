//! The kernels on NVIDIA GPUs. Products are cuBLAS's, through candle; what is around them is in `cuda.cu`, which is compiled when it
//! is first needed, for the type of the tensors at hand: f32, f16 or bf16. Whatever the type, everything is summed in f32.
//!
//! Only `libnvrtc` is needed at run time, no toolkit. Nothing here waits for the GPU.

use std::sync::OnceLock;

use candle_core::backend::{BackendDevice as _, BackendStorage as _};
use candle_core::cuda_backend::cudarc::driver::{DevicePtr as _, LaunchConfig, PushKernelArg as _};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice, WrapErr as _};
use candle_core::{
    CpuStorage, CustomOp1, DType, Error, InplaceOp1, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::{Activation, AttentionMask, Conv2d, NextToken};

/// Threads of a block of the kernels that have a thread for each value.
const THREADS: usize = 256;
/// Threads that run in lockstep.
const WARP: usize = 32;
/// Up to this many queries, a block each is faster than a thread each.
const FEW_QUERIES: usize = 4;
/// Keys whose scores fit a block's shared memory.
const MAX_KEYS_OF_FEW: usize = 8192;
/// Bytes of shared memory that every GPU gives a block without being asked for more.
const SHARED_BYTES: usize = 48 << 10;

pub(super) fn linear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n_out, n_in) = w.dims2()?;
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(n_in) {
        bail!("linear: {:?} does not fit weights {:?}", x.dims(), w.dims());
    }
    shape.push(n_out);
    let fits = bias.is_none_or(|it| it.dims() == [n_out]) && residual.is_none_or(|it| it.dims() == shape);
    if !fits {
        bail!("linear: bias or residual do not fit an output of {shape:?}");
    }
    let out = x.reshape(((), n_in))?.matmul(&w.t()?)?.reshape(shape)?;
    if bias.is_none() && activation == Activation::None && residual.is_none() {
        return Ok(out);
    }
    let n_values = out.elem_count();
    let activation = match activation {
        Activation::None => 0,
        Activation::Gelu => 1,
        Activation::QuickGelu => 2,
    };
    out.inplace_op1(&Kernel {
        others: &[bias, residual],
        numbers: &[int(n_values)?, int(n_out)?, activation],
        ..Kernel::for_each_value("finish_linear", &out, n_values)
    })?;
    Ok(out)
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let n = weight.dims1()?;
    if x.dims().last() != Some(&n) || bias.dims() != [n] {
        bail!("layer_norm: expected [.., {n}], got {:?}", x.dims());
    }
    let n_rows = x.elem_count() / n.max(1);
    let n_warps = 4;
    x.apply_op1_no_bwd(&Kernel {
        others: &[Some(weight), Some(bias)],
        numbers: &[int(n_rows)?, int(n)?],
        factor: Some(eps),
        grid: [n_rows.div_ceil(n_warps), 1, 1],
        n_threads: n_warps * WARP,
        ..Kernel::new("layer_norm", x)
    })
}

pub(super) fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let Conv2d { kernel, stride, padding } = conv;
    let (out_height, out_width) = (conv.output_len(height), conv.output_len(width));
    let n_inputs = kernel * kernel * channels;
    let n_values = batch * out_height * out_width * n_inputs;
    let columns = x.apply_op1_no_bwd(&Kernel {
        numbers: &[
            int(n_values)?,
            int(height)?,
            int(width)?,
            int(channels)?,
            int(out_height)?,
            int(out_width)?,
            int(kernel)?,
            int(stride)?,
            int(padding)?,
        ],
        shape: Shape::from((batch, out_height, out_width, n_inputs)),
        ..Kernel::for_each_value("im2col", x, n_values)
    })?;
    linear(&columns, w, Some(bias), Activation::None, None)
}

pub(super) fn depthwise_3x3_residual(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    if w.dims() != [9, channels] || bias.dims() != [channels] {
        bail!("depthwise: {:?} does not fit weights {:?}", x.dims(), w.dims());
    }
    let n_values = x.elem_count();
    x.apply_op1_no_bwd(&Kernel {
        others: &[Some(w), Some(bias)],
        numbers: &[int(n_values)?, int(height)?, int(width)?, int(channels)?],
        ..Kernel::for_each_value("depthwise_3x3_residual", x, n_values)
    })
}

pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    n_heads: usize,
    mask: &AttentionMask,
) -> Result<Tensor> {
    let (batch, n_queries, channels) = q.dims3()?;
    let n_keys = k.dim(1)?;
    let (n_visible, step) = match mask {
        // Rows of different lengths, one after the other: the kernels know one length.
        AttentionMask::Lengths(n) if n.len() == batch && n.iter().any(|it| *it != n[0]) => {
            let rows = n.iter().enumerate().map(|(row, n)| {
                let row = |it: &Tensor| it.narrow(0, row, 1);
                attention(&row(q)?, &row(k)?, &row(v)?, n_heads, &AttentionMask::Lengths(vec![*n]))
            });
            return Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0);
        }
        AttentionMask::Lengths(n) if n.len() == batch && batch > 0 => (n[0], 0),
        AttentionMask::Causal { offset } => (offset + 1, 1),
        AttentionMask::Lengths(_) => (0, 0),
    };
    if n_visible == 0 || n_queries == 0 || n_visible + step * (n_queries - 1) > n_keys {
        bail!("attention: {mask:?} does not fit {n_queries} queries and {n_keys} keys");
    }
    let head_dim = channels / n_heads;
    let numbers = [channels, head_dim, n_queries, n_keys, n_visible, step];
    let numbers = numbers.into_iter().map(int).collect::<Result<Vec<_>>>()?;
    let kernel = Kernel { others: &[Some(k), Some(v)], numbers: &numbers, ..Kernel::new("", q) };
    if n_queries <= FEW_QUERIES && n_keys <= MAX_KEYS_OF_FEW && head_dim <= THREADS {
        return q.apply_op1_no_bwd(&Kernel {
            name: "attention_few",
            grid: [n_queries, n_heads, batch],
            n_threads: THREADS,
            shared_bytes: (n_keys + THREADS) * size_of::<f32>(),
            ..kernel
        });
    }
    let n_threads = threads_for_queries(n_queries);
    q.apply_op1_no_bwd(&Kernel {
        name: of_head_dim(head_dim, ["attention_32", "attention_64", "attention_128"])?,
        grid: [n_queries.div_ceil(n_threads), n_heads, batch],
        n_threads,
        ..kernel
    })
}

pub(super) fn window_attention(qkv: &Tensor, n_heads: usize, window: usize) -> Result<Tensor> {
    let (batch, height, width, three_channels) = qkv.dims4()?;
    let channels = three_channels / 3;
    if !three_channels.is_multiple_of(3 * n_heads)
        || window == 0
        || !height.is_multiple_of(window)
        || !width.is_multiple_of(window)
    {
        bail!("window_attention: {:?}, {n_heads} heads, windows of {window}", qkv.dims());
    }
    let head_dim = channels / n_heads;
    let names = ["window_attention_32", "window_attention_64", "window_attention_128"];
    let n_threads = threads_for_queries(window * window);
    qkv.apply_op1_no_bwd(&Kernel {
        numbers: &[int(channels)?, int(head_dim)?, int(window)?, int(width)?],
        shape: Shape::from((batch, height, width, channels)),
        grid: [(window * window).div_ceil(n_threads), n_heads, batch * (height / window) * (width / window)],
        n_threads,
        ..Kernel::new(of_head_dim(head_dim, names)?, qkv)
    })
}

/// Whole warps; small sequences in one block, whose keys are then read once.
fn threads_for_queries(n_queries: usize) -> usize {
    if n_queries <= 6 * WARP { n_queries.next_multiple_of(WARP) } else { 2 * WARP }
}

/// The kernel that was compiled for heads of this size.
fn of_head_dim(head_dim: usize, [up_to_32, up_to_64, up_to_128]: [&'static str; 3]) -> Result<&'static str> {
    match head_dim {
        0..=32 => Ok(up_to_32),
        33..=64 => Ok(up_to_64),
        65..=128 => Ok(up_to_128),
        _ => bail!("attention: heads of {head_dim} channels; a GPU runs up to 128"),
    }
}

pub(super) fn channel_attention(qkv: &Tensor, n_groups: usize) -> Result<Tensor> {
    let (batch, n_tokens, three_channels) = qkv.dims3()?;
    let channels = three_channels / 3;
    if n_tokens == 0 || !three_channels.is_multiple_of(3 * n_groups) {
        bail!("channel_attention: {:?}, {n_groups} groups", qkv.dims());
    }
    let d = channels / n_groups;
    // Of queries and keys in one kernel, of weights in another.
    let n_per_chunk = (SHARED_BYTES / (2 * d * size_of::<f32>())).min(128);
    if n_per_chunk == 0 || d * d * size_of::<f32>() > SHARED_BYTES {
        bail!("channel_attention: groups of {d} channels; a GPU runs up to 110");
    }
    let n_chunks = n_tokens.div_ceil(n_per_chunk);
    let of_tokens = [int(n_tokens)?, int(channels)?, int(d)?, int(n_per_chunk)?];
    let grid = [n_chunks, n_groups, batch];
    let partial = qkv.apply_op1_no_bwd(&Kernel {
        numbers: &of_tokens,
        shape: Shape::from((n_chunks, batch * n_groups * d, d)),
        out: DType::F32,
        grid,
        n_threads: THREADS,
        shared_bytes: 2 * n_per_chunk * d * size_of::<f32>(),
        ..Kernel::new("channel_scores", qkv)
    })?;
    let n_rows = batch * n_groups * d;
    let weights = partial.apply_op1_no_bwd(&Kernel {
        numbers: &[int(n_chunks)?, int(n_rows)?, int(d)?],
        factor: Some(1.0 / (n_tokens as f32).sqrt()),
        shape: Shape::from((n_rows, d)),
        grid: [n_rows.div_ceil(THREADS / WARP), 1, 1],
        n_threads: THREADS,
        ..Kernel::new("channel_softmax", &partial)
    })?;
    weights.apply_op1_no_bwd(&Kernel {
        values: qkv.dtype(),
        others: &[Some(qkv)],
        numbers: &of_tokens,
        shape: Shape::from((batch, n_tokens, channels)),
        out: qkv.dtype(),
        grid,
        n_threads: THREADS,
        shared_bytes: d * d * size_of::<f32>(),
        ..Kernel::new("channel_apply", &weights)
    })
}

pub(super) fn next_token(logits: &Tensor, rule: &NextToken<'_>) -> Result<Tensor> {
    let n = logits.dims1()?;
    let ids = [rule.forced.unwrap_or(0), rule.fallback, rule.copied.end.saturating_sub(1)];
    if logits.dtype() != DType::F32 || ids.iter().any(|id| *id as usize >= n) {
        bail!("next_token: {:?} logits of type {:?} for tokens {ids:?}", logits.dims(), logits.dtype());
    }
    // A few numbers, and only when something has been said twice.
    let banned: Vec<f32> = rule.banned.iter().map(|id| *id as f32).collect();
    let banned = (!banned.is_empty()).then(|| Tensor::new(banned, logits.device())).transpose()?;
    let forced = rule.forced.map_or(Ok(-1), |id| int(id as usize))?;
    logits.apply_op1_no_bwd(&Kernel {
        others: &[banned.as_ref()],
        numbers: &[
            int(rule.banned.len())?,
            int(n)?,
            forced,
            int(rule.fallback as usize)?,
            int(rule.copied.start as usize)?,
            int(rule.copied.len())?,
        ],
        shape: Shape::from(2 + rule.copied.len()),
        grid: [1, 1, 1],
        n_threads: 1024,
        ..Kernel::new("next_token", logits)
    })
}

/// A kernel of `cuda.cu` and what it gets: the output, the tensor that it is applied to, other tensors, numbers, a factor.
#[derive(Clone)]
struct Kernel<'a> {
    name: &'static str,
    /// What `Value` is; the type of `others`.
    values: DType,
    /// In order; a null pointer where there is none.
    others: &'a [Option<&'a Tensor>],
    numbers: &'a [i32],
    factor: Option<f32>,
    grid: [usize; 3],
    n_threads: usize,
    /// Asked for at the launch, beside what the kernel declares.
    shared_bytes: usize,
    /// Of the output; not used in place.
    shape: Shape,
    out: DType,
}

impl Kernel<'_> {
    /// With an output like `x`.
    fn new(name: &'static str, x: &Tensor) -> Self {
        Self {
            name,
            values: x.dtype(),
            others: &[],
            numbers: &[],
            factor: None,
            grid: [1, 1, 1],
            n_threads: WARP,
            shared_bytes: 0,
            shape: x.shape().clone(),
            out: x.dtype(),
        }
    }

    fn for_each_value(name: &'static str, x: &Tensor, n_values: usize) -> Self {
        Self { grid: [n_values.div_ceil(THREADS), 1, 1], n_threads: THREADS, ..Self::new(name, x) }
    }

    /// Starts it; `out` and `x` are places in the device's memory.
    fn launch(&self, device: &CudaDevice, out: u64, x: u64) -> Result<()> {
        if self.grid.contains(&0) {
            return Ok(()); // nothing to do, which CUDA calls an error
        }
        let (module, ptx) = compiled(self.values)?;
        let function = device.get_or_load_custom_func(self.name, module, ptx)?;
        let guards: Vec<_> = self.others.iter().map(|it| it.map(Tensor::storage_and_layout)).collect();
        let mut pointers = vec![out, x];
        for guard in &guards {
            pointers.push(match guard {
                None => 0,
                Some((storage, layout)) => match &**storage {
                    Storage::Cuda(storage) if storage.dtype() == self.values => {
                        address(self.name, storage, layout)?
                    }
                    _ => bail!("{}: expected tensors of {:?} on the GPU", self.name, self.values),
                },
            });
        }
        let mut arguments = function.builder();
        for pointer in &pointers {
            arguments.arg(pointer);
        }
        for number in self.numbers {
            arguments.arg(number);
        }
        if let Some(factor) = &self.factor {
            arguments.arg(factor);
        }
        let grid = self.grid.map(|n| n as u32);
        let config = LaunchConfig {
            grid_dim: (grid[0], grid[1], grid[2]),
            block_dim: (self.n_threads as u32, 1, 1),
            shared_mem_bytes: self.shared_bytes as u32,
        };
        // SAFETY: the arguments are those of the kernel's declaration in cuda.cu, pointers first; whoever made this has checked that
        // the shapes fit each other, so the kernel stays inside of the tensors. They stay alive as long as they are needed: memory
        // is freed in the order of the only stream (see `device.rs`), after this.
        #[expect(unsafe_code, reason = "a kernel is a program that Rust cannot check; see above")]
        unsafe { arguments.launch(config) }.w()?;
        Ok(())
    }
}

impl CustomOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: not on the CPU", self.name)
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        // SAFETY: every kernel writes its whole output, and nothing reads it before.
        #[expect(unsafe_code, reason = "memory that is not cleared first; see above")]
        let out = unsafe { x.device.alloc_uninit(&self.shape, self.out) }?;
        let whole = Layout::contiguous(self.shape.clone());
        self.launch(&x.device, address(self.name, &out, &whole)?, address(self.name, x, layout)?)?;
        Ok((out, self.shape.clone()))
    }
}

impl InplaceOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("{}: not on the CPU", self.name)
    }

    fn cuda_fwd(&self, x: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let place = address(self.name, x, layout)?;
        self.launch(&x.device, place, place)
    }
}

/// Where a contiguous tensor begins.
fn address(name: &str, storage: &CudaStorage, layout: &Layout) -> Result<u64> {
    let Some((start, _)) = layout.contiguous_offsets() else { bail!("{name}: needs contiguous tensors") };
    let stream = storage.device.cuda_stream();
    let base = match &storage.slice {
        CudaStorageSlice::F32(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::F16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::BF16(values) => values.device_ptr(&stream).0,
        _ => bail!("{name}: expected f32, f16 or bf16, got {:?}", storage.dtype()),
    };
    Ok(base + (start * storage.dtype().size_in_bytes()) as u64)
}

/// `cuda.cu` compiled for a type, with the name it is kept under. The driver makes machine code of it for any GPU from Turing on.
fn compiled(values: DType) -> Result<(&'static str, &'static str)> {
    static F32: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    static F16: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    static BF16: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let (kept, module, define) = match values {
        DType::F32 => (&F32, "kernels_f32", None),
        DType::F16 => (&F16, "kernels_f16", Some("--define-macro=FLOAT16")),
        DType::BF16 => (&BF16, "kernels_bf16", Some("--define-macro=BFLOAT16")),
        other => bail!("kernels run in f32, f16 or bf16, not in {other:?}"),
    };
    let compile = || {
        let options = CompileOptions {
            arch: Some("compute_75"),
            options: define.map(str::to_owned).into_iter().collect(),
            ..CompileOptions::default()
        };
        compile_ptx_with_opts(include_str!("cuda.cu"), options)
            .map(|ptx| ptx.to_src())
            .map_err(|error| format!("the kernels do not compile: {error}"))
    };
    match kept.get_or_init(compile) {
        Ok(ptx) => Ok((module, ptx)),
        Err(problem) => Err(Error::Msg(problem.clone())),
    }
}

/// A count as kernels take it.
fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_too_large| Error::Msg(format!("{n} values are more than a kernel can count")))
}
