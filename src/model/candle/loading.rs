//! Reading checkpoints: safetensors only, strict, and one tensor at a time.
//!
//! Every tensor of the file must be asked for by the model and every tensor the model asks for must be there in the
//! shape that config.json implies; a checkpoint of another model or version cannot half load.
//! Tensors are read with plain file reads (no memory map, so a file changed underneath cannot corrupt a running model,
//! and no copy of the whole file in memory) and widened to f32.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::model::ModelError;

/// The longest header read; real ones have some 100 kB.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// The tensors of a checkpoint directory: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
pub struct Checkpoint {
    dir: PathBuf,
    device: Device,
    files: Vec<(PathBuf, File)>,
    /// By name: which file, where its data begins in it, and what it is.
    tensors: BTreeMap<String, (usize, u64, TensorInfo)>,
    used: RefCell<BTreeSet<String>>,
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
            used: RefCell::default(),
        };
        for name in weight_files(dir)? {
            checkpoint.add_file(dir.join(name))?;
        }
        Ok(checkpoint)
    }

    /// The root of the names.
    pub fn root(&self) -> Weights<'_> {
        Weights { checkpoint: self, prefix: String::new() }
    }

    /// Fails when some tensor was never asked for.
    pub fn finish(&self) -> Result<(), ModelError> {
        let used = self.used.borrow();
        let unused: Vec<&str> =
            self.tensors.keys().filter(|name| !used.contains(*name)).map(String::as_str).collect();
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
            let entry = (self.files.len(), data_start, info.clone());
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(checkpoint_error(&path, format!("tensor {name:?} is also in another file")));
            }
        }
        self.files.push((path, file));
        Ok(())
    }

    fn load(&self, name: &str, shape: Option<&[usize]>) -> Result<Tensor, ModelError> {
        let Some((file_idx, data_start, info)) = self.tensors.get(name) else {
            let shape = shape.map_or_else(String::new, |shape| format!(" of shape {shape:?}"));
            return Err(checkpoint_error(&self.dir, format!("tensor {name:?}{shape} is missing")));
        };
        let (path, file) = &self.files[*file_idx];
        if let Some(expected) = shape.filter(|shape| *shape != info.shape.as_slice()) {
            return Err(checkpoint_error(
                path,
                format!("tensor {name:?}: expected shape {expected:?} by config.json, got {:?}", info.shape),
            ));
        }
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        file.read_exact_at(&mut bytes, data_start + start as u64)
            .map_err(|error| checkpoint_error(path, format!("tensor {name:?}: {error}")))?;
        let values = widen(&bytes, info.dtype).ok_or_else(|| {
            checkpoint_error(
                path,
                format!("tensor {name:?}: expected F32, F16 or BF16 values, got {:?}", info.dtype),
            )
        })?;
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            return Err(checkpoint_error(path, format!("tensor {name:?} holds {bad}; the file is damaged")));
        }
        self.used.borrow_mut().insert(name.to_owned());
        Ok(Tensor::from_vec(values, info.shape.as_slice(), &self.device)?)
    }
}

impl Weights<'_> {
    /// The place `name` below this one.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { checkpoint: self.checkpoint, prefix: self.path(&name.to_string()) }
    }

    /// The tensor `name`, which must have this shape; f32, contiguous.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.checkpoint.load(&self.path(name), Some(shape))
    }

    /// The tensor `name` in whatever shape it has, if it is there.
    pub fn get_if_present(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let path = self.path(name);
        self.checkpoint.tensors.contains_key(&path).then(|| self.checkpoint.load(&path, None)).transpose()
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
        return Err(checkpoint_error(
            &single,
            "no such file; weights are read from model.safetensors or from the shards of \
             model.safetensors.index.json (pickled .bin files are never loaded)",
        ));
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
