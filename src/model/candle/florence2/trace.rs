//! Looking at tensors on their way through the network.

use candle_core::Tensor;

/// Shows intermediate tensors to a test, by name; costs nothing when off.
#[expect(clippy::type_complexity, reason = "an optional callback; a name for it would say no more")]
pub struct Trace<'a>(Option<&'a mut dyn FnMut(&str, &Tensor)>);

impl<'a> Trace<'a> {
    /// Shows nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Calls `f` with each intermediate tensor and its name.
    pub fn to(f: &'a mut dyn FnMut(&str, &Tensor)) -> Self {
        Self(Some(f))
    }

    pub(in crate::model::candle) fn show(&mut self, name: impl FnOnce() -> String, tensor: &Tensor) {
        if let Some(f) = &mut self.0 {
            f(&name(), tensor);
        }
    }
}
