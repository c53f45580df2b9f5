//! The ROS 2 rim: conversions, topics, services, parameters; no maths.
//!
//! r2r drives everything from [`r2r::Node::spin_once`], which a [`Spinner`] calls on its own thread; what arrives comes
//! out of streams, read by tokio tasks. The model runs on a third thread (`model::worker`).

pub mod control;
pub mod convert;
pub mod diagnostics;
pub mod inputs;
pub mod lifecycle;
pub mod logging;
pub mod messages;
pub mod node;
pub mod parameters;
pub mod player;
pub mod publish;
pub mod remap;
pub mod services;
mod spinner;
pub mod transforms;

pub use self::spinner::Spinner;

use std::sync::{Arc, Mutex};

use r2r::builtin_interfaces::msg::Time;

/// The ROS clock (simulated time included) in nanoseconds; 0 when it cannot be read.
pub fn now_ns(clock: &Arc<Mutex<r2r::Clock>>) -> i64 {
    let now = clock.lock().ok().and_then(|mut clock| clock.get_now().ok());
    now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}

/// Nanoseconds since the epoch as a message.
fn time_from_nanos(nanos: i64) -> Time {
    let (sec, nanosec) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    Time { sec: sec as i32, nanosec: nanosec as u32 }
}

fn nanos_from_time(time: &Time) -> i64 {
    i64::from(time.sec) * 1_000_000_000 + i64::from(time.nanosec)
}

/// The program's own arguments: everything outside `--ros-args ... [--]`, which is for ROS.
pub fn without_ros_args(args: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut for_ros = false;
    args.into_iter()
        .filter(|arg| match arg.as_str() {
            "--ros-args" => {
                for_ros = true;
                false
            }
            "--" if for_ros => {
                for_ros = false;
                false
            }
            _ => !for_ros,
        })
        .collect()
}

/// Keeps glibc from returning every image's memory to the kernel and faulting it in again for the next one, which
/// costs far more time than the images' copies themselves. Call it first thing in `main`.
pub fn keep_image_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MIB: libc::c_int = 1 << 20;
        // An image of 4K with four channels fits below the threshold; the rest bounds what an idle node holds on to.
        for (option, value) in [
            (libc::M_MMAP_THRESHOLD, 32 * MIB),
            (libc::M_TRIM_THRESHOLD, 256 * MIB),
            (libc::M_TOP_PAD, 16 * MIB),
        ] {
            #[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
            // SAFETY: mallopt only stores tuning values; it takes no pointers, and any value is allowed.
            let accepted = unsafe { libc::mallopt(option, value) };
            debug_assert_eq!(accepted, 1, "glibc accepts these options");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_ros_args;

    #[test]
    fn ros_arguments_are_left_to_ros() {
        let check = |args: &str, expected: &str| {
            let kept = without_ros_args(args.split_whitespace().map(str::to_owned));
            assert_eq!(kept.join(" "), expected);
        };
        check("node --seed 1", "node --seed 1");
        check("node --ros-args -r a:=b", "node");
        check("node --seed 1 --ros-args -p x:=1 -- --rate 5", "node --seed 1 --rate 5");
    }
}
