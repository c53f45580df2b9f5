//! What a model has worked out about the frames it saw last, so that a second question costs no second look.

use crate::model::KeyedImage;

/// Frames that are kept: the newest, and the one before it for requests that overlap.
const MAX_FRAMES: usize = 2;

/// Features by the frame's key, and within it by the part of the frame.
pub(super) struct FrameCache<T> {
    /// Newest last.
    frames: Vec<(u64, Vec<(u32, T)>)>,
}

impl<T: Clone> FrameCache<T> {
    pub(super) fn new() -> Self {
        Self { frames: Vec::new() }
    }

    /// The features of `image`, by `compute` when it was not seen before.
    pub(super) fn get_or_try_insert<E>(
        &mut self,
        image: KeyedImage<'_>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let frame = self.frames.iter().position(|(key, _)| *key == image.key);
        let known = frame.and_then(|it| self.frames[it].1.iter().find(|(part, _)| *part == image.part));
        if let Some((_, features)) = known {
            return Ok(features.clone());
        }
        let features = compute()?;
        let entry = (image.part, features.clone());
        match frame {
            Some(frame) => self.frames[frame].1.push(entry),
            None => {
                if self.frames.len() == MAX_FRAMES {
                    self.frames.remove(0);
                }
                self.frames.push((image.key, vec![entry]));
            }
        }
        Ok(features)
    }
}
