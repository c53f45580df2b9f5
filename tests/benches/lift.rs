//! Time of lifting at 640x480: the frame's support planes, one target, its grasps. One thread.
//!
//!     cargo bench --no-default-features --bench lift -- [N]
//!
//! Prints the median and 95th percentile of CPU time (Linux) over N generated scenes, most of it spent nowhere else.

use std::time::Duration;

use language_grounding::lift::{FrameGeometry, Gripper, LiftOptions};
use language_grounding::scene::{DepthSensor, FIRST_HELD_OUT_SEED, Scene, SceneConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n: u64 = std::env::args().find_map(|it| it.parse().ok()).unwrap_or(100);
    let (mut planes_ms, mut lift_ms, mut grasp_ms) = (Vec::new(), Vec::new(), Vec::new());
    for seed in FIRST_HELD_OUT_SEED..FIRST_HELD_OUT_SEED + n {
        let config = SceneConfig { samples: 0, ..SceneConfig::camera(640, 480) };
        let seen = Scene::generate(seed, &config)?.render();
        let mut frame = seen.frame("camera", 0);
        frame.depth = Some(DepthSensor::default().measure(&seen.depth, seed));
        let options = LiftOptions::default();
        let start = cpu_time();
        let geometry = FrameGeometry::new(&frame, &options)?;
        planes_ms.push(ms(cpu_time().saturating_sub(start)));
        for bbox in seen.objects.iter().filter_map(|it| it.bbox) {
            let start = cpu_time();
            let Ok(lifted) = geometry.lift("thing", &bbox) else { continue };
            lift_ms.push(ms(cpu_time().saturating_sub(start)));
            let start = cpu_time();
            let grasps = geometry.grasps(&lifted, &Gripper::default());
            grasp_ms.push(ms(cpu_time().saturating_sub(start)));
            std::hint::black_box(grasps);
        }
    }
    for (what, values) in
        [("planes of a frame", planes_ms), ("lift one target", lift_ms), ("its grasps", grasp_ms)]
    {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
        println!("{what:<18} p50 {:.2} ms, p95 {:.2} ms (n = {})", at(0.5), at(0.95), values.len());
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// CPU time of this thread.
#[expect(
    unsafe_code,
    reason = "the standard library has no CPU clock; clock_gettime writes the struct it is given"
)]
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
