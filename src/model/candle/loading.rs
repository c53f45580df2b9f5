//! Reading checkpoints: safetensors only, strict, and one tensor at a time.
//!
//! Every tensor of the file must be asked for by the model and every tensor the model asks for must be there in the
//! shape that config.json implies; a checkpoint of another model or version cannot half load.
//! Tensors are read with plain file reads (no memory map, so a file changed underneath cannot corrupt a running model,
//! and no copy of the whole file in memory) and widened to f32, which a GPU may then be asked to round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::kernels::Precision;
use crate::model::{ModelError, Quantize};

/// The longest header read; real ones have some 100 kB.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// The tensors of a checkpoint directory: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
pub struct Checkpoint {
    dir: PathBuf,
    device: Device,
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Entry>,
    used: Mutex<BTreeSet<String>>,
    /// Of packed weights on the CPU.
    precision: Precision,
    /// Of the tensors as models get them.
    dtype: DType,
}

/// One tensor of a checkpoint.
struct Entry {
    /// Its name in the file; the model may know it by another.
    name_in_file: String,
    /// Whether the model wants it transposed.
    is_transposed: bool,
    shape: Vec<usize>,
    /// Where its values are; `None` when only shapes are known.
    place: Option<Place>,
}

struct Place {
    file_idx: usize,
    start: u64,
    n_bytes: usize,
    dtype: Dtype,
}

/// A place in a checkpoint's tree of names, such as `model.vision_tower`.
#[derive(Clone)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    prefix: String,
}

/// Reads one of a checkpoint's JSON files.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| checkpoint_error(path, format!("{error}; a model directory must hold this file")))?;
    serde_json::from_str(&text).map_err(|error| checkpoint_error(path, error.to_string()))
}

/// A [`ModelError::Checkpoint`] about `path`.
pub fn checkpoint_error(path: &Path, problem: impl Into<String>) -> ModelError {
    ModelError::Checkpoint { path: path.display().to_string(), problem: problem.into() }
}

impl Checkpoint {
    /// Reads the headers; tensors follow when asked for.
    pub fn open(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            device: device.clone(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            used: Mutex::default(),
            precision: Precision::F32,
            dtype: DType::F32,
        };
        for name in weight_files(dir)? {
            checkpoint.add_file(dir.join(name))?;
        }
        Ok(checkpoint)
    }

    /// A checkpoint of which only names and shapes are known. Its tensors are zeros that take no memory: enough to see whether
    /// a model asks for exactly these.
    pub fn of_shapes(shapes: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        let entry = |(name, shape): (String, Vec<usize>)| {
            let entry = Entry { name_in_file: name.clone(), is_transposed: false, shape, place: None };
            (name, entry)
        };
        Self {
            dir: PathBuf::from("shapes"),
            device: Device::Cpu,
            files: Vec::new(),
            tensors: shapes.into_iter().map(entry).collect(),
            used: Mutex::default(),
            precision: Precision::F32,
            dtype: DType::F32,
        }
    }

    /// Says how the models are to keep their weights: on the CPU those of linear layers and convolutions, on a GPU all. `device` is its
    /// name, for the error when it, or this processor, cannot do that.
    pub fn quantize(&mut self, quantize: Quantize, device: &str) -> Result<(), ModelError> {
        let on_cpu = self.device.is_cpu();
        let refused = |why: &str| {
            Err(ModelError::Device(format!("quantize: {} {why}, or use another device", quantize.name())))
        };
        match (quantize, on_cpu) {
            (Quantize::None, _) => {}
            (Quantize::Auto, true) => self.precision = Precision::fastest(),
            (Quantize::Int8, true) => self.precision = Precision::Int8,
            (Quantize::Bf16, true) if !Precision::Bf16.is_supported() => {
                return refused(
                    "needs a processor with AVX512_BF16 or AMX, and this one has neither; use quantize: int8 or none",
                );
            }
            (Quantize::Bf16, true) => self.precision = Precision::Bf16,
            (Quantize::F16, true) => {
                return refused(&format!(
                    "runs on GPUs only, and the device is {device}; use quantize: none, auto, bf16 or int8"
                ));
            }
            (Quantize::Auto | Quantize::F16, false) => self.dtype = DType::F16,
            (Quantize::Bf16, false) => self.dtype = DType::BF16,
            (Quantize::Int8, false) => {
                return refused(&format!(
                    "runs on the CPU only, and the device is {device}; use quantize: none, auto, f16 or bf16"
                ));
            }
        }
        Ok(())
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Gives tensors the names the model knows them by: `new_name` also says whether one is stored transposed.
    pub fn rename(&mut self, new_name: impl Fn(&str) -> (String, bool)) -> Result<(), ModelError> {
        for (name, entry) in std::mem::take(&mut self.tensors) {
            let (new, is_transposed) = new_name(&name);
            let entry = Entry { is_transposed, ..entry };
            if let Some(other) = self.tensors.insert(new.clone(), entry) {
                return Err(checkpoint_error(
                    &self.dir,
                    format!(
                        "tensors {:?} and {name:?} are both what the model calls {new:?}",
                        other.name_in_file
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The root of the names.
    pub fn root(&self) -> Weights<'_> {
        Weights { checkpoint: self, prefix: String::new() }
    }

    /// Lets tensors lie unused whose names end with `suffix`: buffers that older versions of a reference wrote and that hold nothing
    /// learned.
    pub fn allow_unused(&self, suffix: &str) {
        let known = self.tensors.keys().filter(|name| name.ends_with(suffix)).cloned();
        self.used().extend(known);
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when some tensor was never asked for.
    pub fn finish(&self) -> Result<(), ModelError> {
        let used = self.used();
        let unused: Vec<&str> = self
            .tensors
            .iter()
            .filter(|(name, _)| !used.contains(*name))
            .map(|(_, entry)| entry.name_in_file.as_str())
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        let shown = unused.iter().take(3).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        Err(checkpoint_error(
            &self.dir,
            format!(
                "{} tensors are not part of the model that config.json describes, such as {shown}; \
                 config.json and the weights do not belong together",
                unused.len()
            ),
        ))
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let io_error = |error: std::io::Error| checkpoint_error(&path, error.to_string());
        let file = File::open(&path).map_err(io_error)?;
        let file_bytes = file.metadata().map_err(io_error)?.len();
        let truncated = || {
            checkpoint_error(
                &path,
                format!("not a whole safetensors file ({file_bytes} bytes); fetch it again"),
            )
        };
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).map_err(|_short| truncated())?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > MAX_HEADER_BYTES || header_bytes > file_bytes {
            return Err(truncated());
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact_at(&mut header, 8).map_err(|_short| truncated())?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| checkpoint_error(&path, format!("bad safetensors header: {error}")))?;
        let data_start = 8 + header_bytes;
        if data_start + metadata.data_len() as u64 != file_bytes {
            return Err(truncated());
        }
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                file_idx: self.files.len(),
                start: data_start + start as u64,
                n_bytes: end - start,
                dtype: info.dtype,
            };
            let entry = Entry {
                name_in_file: name.clone(),
                is_transposed: false,
                shape: info.shape.clone(),
                place: Some(place),
            };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(checkpoint_error(&path, format!("tensor {name:?} is also in another file")));
            }
        }
        self.files.push((path, file));
        Ok(())
    }

    fn load(&self, name: &str, shape: Option<&[usize]>) -> Result<Tensor, ModelError> {
        let Some(entry) = self.tensors.get(name) else {
            let shape = shape.map_or_else(String::new, |shape| format!(" of shape {shape:?}"));
            return Err(checkpoint_error(&self.dir, format!("tensor {name:?}{shape} is missing")));
        };
        let path = entry.place.as_ref().map_or(&self.dir, |place| &self.files[place.file_idx].0);
        let problem =
            |problem: String| checkpoint_error(path, format!("tensor {:?}: {problem}", entry.name_in_file));
        let expected = shape.map(|shape| {
            let mut shape = shape.to_vec();
            if entry.is_transposed {
                shape.reverse();
            }
            shape
        });
        if let Some(expected) = expected.filter(|expected| *expected != entry.shape) {
            let got = &entry.shape;
            return Err(problem(format!("expected shape {expected:?} by config.json, got {got:?}")));
        }
        let tensor = match &entry.place {
            Some(place) => {
                let values = self.read(place).map_err(problem)?;
                Tensor::from_vec(values, entry.shape.as_slice(), &self.device)?.to_dtype(self.dtype)?
            }
            None => Tensor::zeros((), DType::F32, &self.device)?.broadcast_as(entry.shape.as_slice())?,
        };
        self.used().insert(name.to_owned());
        if entry.is_transposed { Ok(tensor.t()?.contiguous()?) } else { Ok(tensor) }
    }

    fn read(&self, place: &Place) -> Result<Vec<f32>, String> {
        let mut bytes = vec![0; place.n_bytes];
        let file = &self.files[place.file_idx].1;
        file.read_exact_at(&mut bytes, place.start).map_err(|error| error.to_string())?;
        let values = widen(&bytes, place.dtype)
            .ok_or_else(|| format!("expected F32, F16 or BF16 values, got {:?}", place.dtype))?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(bad) => Err(format!("holds {bad}; the file is damaged")),
            None => Ok(values),
        }
    }
}

impl Weights<'_> {
    /// The place `name` below this one.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { checkpoint: self.checkpoint, prefix: self.path(&name.to_string()) }
    }

    /// The tensor `name`, which must have this shape; f32 unless a GPU is to keep it smaller, contiguous.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.checkpoint.load(&self.path(name), Some(shape))
    }

    /// The tensor `name` in whatever shape it has, if it is there.
    pub fn get_if_present(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let path = self.path(name);
        self.checkpoint.tensors.contains_key(&path).then(|| self.checkpoint.load(&path, None)).transpose()
    }

    /// How packed weights are to be kept on the CPU.
    pub fn precision(&self) -> Precision {
        self.checkpoint.precision
    }

    /// Whether there is a tensor `name` or anything below that name.
    pub fn contains(&self, name: &str) -> bool {
        let path = self.path(name);
        let below = format!("{path}.");
        self.checkpoint.tensors.keys().any(|key| *key == path || key.starts_with(&below))
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// The names of the files that hold the tensors.
fn weight_files(dir: &Path) -> Result<Vec<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let (single, index_path) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
    if single.is_file() {
        return Ok(vec!["model.safetensors".into()]);
    }
    if !index_path.is_file() {
        let pickled = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut pickled = pickled.filter(|path| {
            path.extension()
                .is_some_and(|it| ["bin", "pt", "pth", "ckpt", "pkl"].iter().any(|bad| it == *bad))
        });
        let instead = match pickled.next().as_deref().and_then(Path::file_name) {
            Some(name) => format!(
                "{} is a pickle, which can run any code when it is loaded and is never read; convert it with \
                 `save_pretrained(..., safe_serialization=True)` in transformers or fetch a revision with safetensors",
                name.display()
            ),
            None => {
                "weights are read from model.safetensors or from the shards of model.safetensors.index.json"
                    .into()
            }
        };
        return Err(checkpoint_error(&single, format!("no such file; {instead}")));
    }
    let index: Index = read_json(&index_path)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| name.contains('/') || name.contains("..")) {
        return Err(checkpoint_error(
            &index_path,
            format!("shard {name:?}: expected a file name without a folder"),
        ));
    }
    Ok(names.into_iter().collect())
}

/// Little-endian floats of any usual width as f32.
fn widen(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|it| [it[0], it[1]]);
    match dtype {
        Dtype::F32 => {
            Some(bytes.chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect())
        }
        Dtype::F16 => Some(pairs().map(|it| half::f16::from_le_bytes(it).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|it| half::bf16::from_le_bytes(it).to_f32()).collect()),
        _ => None,
    }
}
