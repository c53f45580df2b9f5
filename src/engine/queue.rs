//! Color and depth images paired by stamp: the newest of each, until they are looked at; pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::camera::FrameHeader;

/// Color images kept while their depth image is on its way, and depth images for the color images to come.
const MAX_KEPT: usize = 8;

/// A message that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept<M> {
    /// Counts messages of its kind: a new message, a new number, from 1.
    pub sequence: u64,
    /// Stamp and frame.
    pub header: FrameHeader,
    /// When it arrived.
    pub arrived: Instant,
    /// As it came.
    pub message: M,
}

/// A color image with the depth image that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair<C, D> {
    /// Color.
    pub color: Kept<C>,
    /// The depth image nearest in time, if it is near enough.
    pub depth: Option<Kept<D>>,
}

/// The newest images of a camera. "Newest" is by arrival: clocks jump.
#[derive(Debug)]
pub struct FrameQueue<C, D> {
    colors: VecDeque<Kept<C>>,
    depths: VecDeque<Kept<D>>,
    n_colors: u64,
    n_depths: u64,
}

impl<C, D> Default for FrameQueue<C, D> {
    fn default() -> Self {
        Self { colors: VecDeque::new(), depths: VecDeque::new(), n_colors: 0, n_depths: 0 }
    }
}

impl<C: Clone, D: Clone> FrameQueue<C, D> {
    /// A color image arrived.
    pub fn push_color(&mut self, header: FrameHeader, arrived: Instant, message: C) {
        self.n_colors += 1;
        forget_if_back(&header, &mut self.colors, &mut self.depths);
        push(&mut self.colors, Kept { sequence: self.n_colors, header, arrived, message });
    }

    /// A depth image arrived.
    pub fn push_depth(&mut self, header: FrameHeader, arrived: Instant, message: D) {
        self.n_depths += 1;
        forget_if_back(&header, &mut self.depths, &mut self.colors);
        push(&mut self.depths, Kept { sequence: self.n_depths, header, arrived, message });
    }

    /// The newest color image, with its depth image if that is there.
    pub fn newest(&self, tolerance: Duration) -> Option<Pair<C, D>> {
        self.colors.back().map(|color| self.paired(color, tolerance))
    }

    /// The newest color image that has a depth image within `tolerance`.
    pub fn newest_with_depth(&self, tolerance: Duration) -> Option<Pair<C, D>> {
        self.colors.iter().rev().map(|it| self.paired(it, tolerance)).find(|it| it.depth.is_some())
    }

    /// Stamp of the depth image nearest to the newest color image minus that image's, nanoseconds.
    pub fn nearest_offset_ns(&self) -> Option<i64> {
        let color_ns = self.colors.back()?.header.stamp_ns;
        let offsets = self.depths.iter().map(|it| it.header.stamp_ns.saturating_sub(color_ns));
        offsets.min_by_key(|it| it.unsigned_abs())
    }

    fn paired(&self, color: &Kept<C>, tolerance: Duration) -> Pair<C, D> {
        let apart_ns = |depth: &&Kept<D>| depth.header.stamp_ns.abs_diff(color.header.stamp_ns);
        let nearest = self.depths.iter().min_by_key(apart_ns);
        let depth = nearest.filter(|it| u128::from(apart_ns(it)) <= tolerance.as_nanos());
        Pair { color: color.clone(), depth: depth.cloned() }
    }
}

impl<C, D> Pair<C, D> {
    /// Depth stamp minus color stamp, nanoseconds; `None` without depth.
    pub fn depth_offset_ns(&self) -> Option<i64> {
        self.depth.as_ref().map(|it| it.header.stamp_ns.saturating_sub(self.color.header.stamp_ns))
    }
}

/// A stamp under the one before it shows that time stepped back (a bag starts over): what was kept is of before, except what
/// the other topic has sent since, which may belong to this message.
fn forget_if_back<M, N>(header: &FrameHeader, kept: &mut VecDeque<Kept<M>>, others: &mut VecDeque<Kept<N>>) {
    let Some(last) = kept.back().filter(|it| header.stamp_ns < it.header.stamp_ns) else { return };
    others.retain(|it| last.arrived <= it.arrived && it.header.stamp_ns < last.header.stamp_ns);
    kept.clear();
}

fn push<M>(kept: &mut VecDeque<Kept<M>>, message: Kept<M>) {
    kept.push_back(message);
    if kept.len() > MAX_KEPT {
        kept.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Color images and depth images of these stamps, in order of arrival, each with its place as its message.
    fn queue(colors: &[i64], depths: &[i64]) -> FrameQueue<usize, usize> {
        let mut queue = FrameQueue::default();
        let at = |stamp_ns: i64| FrameHeader { stamp_ns, frame_id: "camera".to_owned() };
        let now = Instant::now();
        for (idx, stamp_ns) in colors.iter().enumerate() {
            queue.push_color(at(*stamp_ns), now, idx);
        }
        for (idx, stamp_ns) in depths.iter().enumerate() {
            queue.push_depth(at(*stamp_ns), now, idx);
        }
        queue
    }

    #[test]
    fn after_a_step_back_no_image_of_before_is_paired() {
        let at = |stamp_ns: i64| FrameHeader { stamp_ns, frame_id: "camera".to_owned() };
        let start = Instant::now();
        for is_depth_first in [false, true] {
            let mut queue = FrameQueue::<&str, &str>::default();
            for stamp_ns in [100, 200, 300] {
                let arrived = start + Duration::from_nanos(stamp_ns as u64);
                queue.push_color(at(stamp_ns), arrived, "old");
                queue.push_depth(at(stamp_ns), arrived, "old");
            }
            let later = start + Duration::from_nanos(400);
            let tolerance = Duration::from_nanos(5);
            if is_depth_first {
                queue.push_depth(at(200), later, "new");
                queue.push_color(at(200), later, "new");
            } else {
                queue.push_color(at(200), later, "new");
                assert!(queue.newest(tolerance).unwrap().depth.is_none(), "depth of before");
                queue.push_depth(at(200), later, "new");
            }
            let pair = queue.newest_with_depth(tolerance).unwrap();
            assert_eq!((pair.color.message, pair.depth.unwrap().message), ("new", "new"));
        }
    }

    #[test]
    fn the_newest_pair_within_tolerance() {
        #[track_caller]
        fn check(colors: &[i64], depths: &[i64], expected: Option<(usize, usize, i64)>) {
            let pair = queue(colors, depths).newest_with_depth(Duration::from_nanos(5));
            let found = pair.map(|it| {
                (it.color.message, it.depth.as_ref().unwrap().message, it.depth_offset_ns().unwrap())
            });
            assert_eq!(found, expected);
        }
        check(&[], &[], None);
        check(&[10], &[], None);
        check(&[10], &[10], Some((0, 0, 0)));
        check(&[10], &[15], Some((0, 0, 5)));
        check(&[10], &[16], None);
        // The newest color has no depth yet: the one before it has.
        check(&[10, 43], &[9, 12], Some((0, 0, -1)));
        check(&[10, 43], &[9, 12, 45], Some((1, 2, 2)));
        // After a jump back of the clock, what arrived last is of now, whatever its stamp.
        check(&[1000, 10], &[1001, 11], Some((1, 1, 1)));
        // Stamps at the ends of time.
        check(&[i64::MIN], &[i64::MAX], None);
    }

    #[test]
    fn the_newest_color_image_comes_without_depth_too() {
        let newest = queue(&[10, 43], &[9]).newest(Duration::from_nanos(5)).unwrap();
        assert_eq!((newest.color.sequence, newest.depth, newest.color.message), (2, None, 1));
    }

    #[test]
    fn old_images_make_room_and_numbers_go_on() {
        let stamps: Vec<i64> = (0..20).collect();
        let queue = queue(&stamps, &stamps[..10]);
        assert_eq!(queue.newest(Duration::ZERO).unwrap().color.sequence, 20);
        // Color images 12 to 19 are kept, and depth images 2 to 9: none of them meet.
        assert_eq!(queue.newest_with_depth(Duration::ZERO), None);
        assert!(queue.newest_with_depth(Duration::from_nanos(3)).is_some());
    }
}
