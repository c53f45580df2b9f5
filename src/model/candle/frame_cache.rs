//! What a model has worked out about the frames it saw last, so that a second question costs no second look.

/// Frames that are kept: the newest, and the one before it for requests that overlap.
const MAX_FRAMES: usize = 2;

/// Features by the frame's key.
pub(super) struct FrameCache<T> {
    /// Newest last.
    frames: Vec<(u64, T)>,
}

impl<T: Clone> FrameCache<T> {
    pub(super) fn new() -> Self {
        Self { frames: Vec::new() }
    }

    /// The features of the frame `key`, by `compute` when it was not seen before.
    pub(super) fn get_or_try_insert<E>(
        &mut self,
        key: u64,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some((_, features)) = self.frames.iter().find(|(seen, _)| *seen == key) {
            return Ok(features.clone());
        }
        let features = compute()?;
        if self.frames.len() == MAX_FRAMES {
            self.frames.remove(0);
        }
        self.frames.push((key, features.clone()));
        Ok(features)
    }
}
