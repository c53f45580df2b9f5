//! Pairing color and depth by stamp.

use std::time::Duration;

/// Which color and depth image belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Index of the color image.
    pub color_idx: usize,
    /// Index of the depth image.
    pub depth_idx: usize,
    /// Depth stamp minus color stamp, nanoseconds.
    pub skew_ns: i64,
}

/// The newest color image that has a depth image within `tolerance`, with the nearest such depth. Stamps are nanoseconds, in
/// any order: clocks jump.
pub fn newest_pair(color_stamps_ns: &[i64], depth_stamps_ns: &[i64], tolerance: Duration) -> Option<Pair> {
    let nearest_depth = |(color_idx, color): (usize, &i64)| {
        let nearest = depth_stamps_ns.iter().enumerate().min_by_key(|(_, depth)| depth.abs_diff(*color));
        nearest
            .filter(|(_, depth)| u128::from(depth.abs_diff(*color)) <= tolerance.as_nanos())
            .map(|(depth_idx, depth)| Pair { color_idx, depth_idx, skew_ns: depth - color })
    };
    color_stamps_ns
        .iter()
        .enumerate()
        .filter_map(nearest_depth)
        .max_by_key(|pair| color_stamps_ns[pair.color_idx])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_pair_within_tolerance() {
        #[track_caller]
        fn check(colors: &[i64], depths: &[i64], expected: Option<(usize, usize, i64)>) {
            let pair = newest_pair(colors, depths, Duration::from_nanos(5));
            assert_eq!(pair.map(|it| (it.color_idx, it.depth_idx, it.skew_ns)), expected);
        }
        check(&[], &[], None);
        check(&[10], &[], None);
        check(&[10], &[10], Some((0, 0, 0)));
        check(&[10], &[15], Some((0, 0, 5)));
        check(&[10], &[16], None);
        // The newest color has no depth yet: the one before it has.
        check(&[10, 43], &[9, 12], Some((0, 0, -1)));
        check(&[10, 43], &[9, 12, 45], Some((1, 2, 2)));
        // After a jump back of the clock, order of arrival is not order of stamps.
        check(&[1000, 10], &[1001, 11], Some((0, 0, 1)));
    }
}
