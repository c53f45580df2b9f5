//! What time it is.

use std::sync::Arc;

/// The clock that stamps are of, in nanoseconds; it may jump.
pub type StampClock = Arc<dyn Fn() -> i64 + Send + Sync>;
