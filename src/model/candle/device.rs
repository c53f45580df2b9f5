//! Where tensors live. With `kernels`, the only place that knows about the `cuda` feature.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::model::ModelError;

/// The device a person asked for: `auto`, `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU when this build and this machine have one, otherwise the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this index; an error when there is none.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let index = |digits: &str| digits.parse().ok();
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(index).map(Self::Cuda),
        }
        .ok_or_else(|| ModelError::Device(format!("device {text:?}: expected auto, cpu, cuda or cuda:N")))
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device; returns it with its name, "cpu" or "cuda:N".
    pub fn open(self) -> Result<(Device, String), ModelError> {
        match self {
            Self::Cpu => {
                keep_freed_memory();
                Ok((Device::Cpu, "cpu".into()))
            }
            Self::Cuda(index) => open_cuda(index).map(|device| (device, format!("cuda:{index}"))),
            Self::Auto => Ok(match open_cuda(0) {
                Ok(device) => (device, "cuda:0".into()),
                Err(_no_gpu) => {
                    keep_freed_memory();
                    (Device::Cpu, "cpu".into())
                }
            }),
        }
    }
}

/// Has the C library keep freed memory for the next layer instead of giving it back to the system after each: getting pages
/// again, zeroed, was a tenth of the time of an image through Florence-2. Concerns the whole process; up to
/// [`KEPT_BYTES`] stay with it.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: mallopt only sets numbers inside the allocator, under its own lock; glibc documents these three as
            // settable at any time. A refused value leaves things as they were.
            #[expect(unsafe_code, reason = "a C library call without memory of ours; see above")]
            unsafe {
                libc::mallopt(libc::M_MMAP_MAX, 0);
                libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
                libc::mallopt(libc::M_ARENA_MAX, 1);
            }
        });
    }
}

/// Most free memory that is kept.
const KEPT_BYTES: i32 = 512 << 20;

#[cfg(feature = "cuda")]
fn open_cuda(index: usize) -> Result<Device, ModelError> {
    cuda_device(index).map_err(|error| {
        ModelError::Device(format!(
            "cuda:{index} cannot be used ({error}); choose another GPU or device: cpu"
        ))
    })
}

/// A GPU with one stream for all threads: what was asked first is done first, whichever threads asked. (The stream that candle takes
/// by default is another one on each thread, and a model is loaded on one and runs on others.)
#[cfg(feature = "cuda")]
fn cuda_device(index: usize) -> candle_core::Result<Device> {
    let device = Device::new_cuda_with_stream(index)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: events order the uses of memory by different streams. Everything made on this device is used by its one stream only:
    // each model opens a device of its own, and candle refuses operations between tensors of different ones.
    #[expect(unsafe_code, reason = "saves two events for each tensor and launch; see above")]
    unsafe {
        cuda.disable_event_tracking();
    }
    keep_freed_gpu_memory(cuda);
    Ok(device)
}

/// Has the driver keep freed memory for the next tensors. By default it gives all of it back whenever the host waits for a
/// result, which is after each token of a text. Concerns the whole process. A GPU without memory pools is left as it is.
#[cfg(feature = "cuda")]
fn keep_freed_gpu_memory(cuda: &candle_core::CudaDevice) {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};

    let stream = cuda.cuda_stream();
    let mut kept_bytes = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device exists, its own pool lives as long as it, and this attribute is read from a u64.
    #[expect(unsafe_code, reason = "the driver's interface; see above")]
    unsafe {
        let pool = result::device::get_default_mem_pool(stream.context().cu_device());
        pool.and_then(|pool| result::mem_pool::set_attribute(pool, attribute, (&raw mut kept_bytes).cast()))
            .ok();
    }
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(index: usize) -> Result<Device, ModelError> {
    Err(ModelError::Device(format!(
        "cuda:{index} was asked for, but this program was built without GPU support; \
         rebuild with `--features cuda` or choose device: cpu"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_printed() {
        for (text, expected) in [
            ("auto", Some(DeviceChoice::Auto)),
            ("cpu", Some(DeviceChoice::Cpu)),
            ("cuda", Some(DeviceChoice::Cuda(0))),
            ("cuda:3", Some(DeviceChoice::Cuda(3))),
            ("cuda:", None),
            ("cuda:-1", None),
            ("gpu", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().ok(), expected, "{text:?}");
        }
        assert_eq!(DeviceChoice::Cuda(3).to_string(), "cuda:3");
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_gpu_asked_for_and_absent_is_an_error_and_auto_falls_back() {
        let message = DeviceChoice::Cuda(0).open().map(|(_, name)| name).unwrap_err().to_string();
        assert!(message.contains("--features cuda"), "{message}");
        assert_eq!(DeviceChoice::Auto.open().unwrap().1, "cpu");
    }
}
