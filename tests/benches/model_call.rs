//! Time of a model call: one new image and one phrase, a second phrase about the same image, a caption.
//!
//!     cargo bench --bench model_call -- models/florence2_tiny_tabletop [N]
//!
//! Prints median and 95th percentile of wall time and the CPU time of the whole process per call (Linux), both with
//! pre- and post-processing of a 640x480 image.

use std::path::Path;
use std::time::Instant;

use language_grounding::image::RgbImage;
use language_grounding::model::registry::load;
use language_grounding::model::{KeyedImage, ModelError, ModelOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let dir = arguments.first().map_or("models/florence2_tiny_tabletop", String::as_str);
    let n_calls: usize = arguments.get(1).map_or(Ok(50), |n| n.parse())?;
    let start = Instant::now();
    let mut model = load(Path::new(dir), &ModelOptions::on("auto"))?;
    let loaded = start.elapsed();
    println!("{dir} on {}, {} threads", model.info().device, rayon::current_num_threads());
    println!("load {:.0} ms", loaded.as_secs_f64() * 1e3);
    let image = RgbImage::from_fn(640, 480, |x, y| image::Rgb([x as u8, y as u8, (x / 7 + y / 3) as u8]));
    let keyed = |key| KeyedImage::whole(key, &image);
    measure("new image + phrase", n_calls, |i| model.ground(keyed(i), &["red cup"]).map(|_| ()))?;
    measure("same image + phrase", n_calls, |_| model.ground(keyed(0), &["red cup"]).map(|_| ()))?;
    measure("same image + 4 phrases", n_calls, |_| {
        model.ground(keyed(0), &["red cup", "blue bowl", "plate", "green bottle"]).map(|_| ())
    })?;
    measure("same image, caption", n_calls, |_| model.caption(keyed(0), None).map(|_| ()))?;
    Ok(())
}

fn measure(
    what: &str,
    n_calls: usize,
    mut call: impl FnMut(u64) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    for i in 0..3 {
        call(1_000_000 + i)?;
    }
    let cpu_start = cpu_seconds();
    let mut times_ms = Vec::with_capacity(n_calls);
    for i in 0..n_calls {
        let start = Instant::now();
        call(i as u64)?;
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let cpu_ms = (cpu_seconds() - cpu_start) * 1e3 / n_calls as f64;
    times_ms.sort_by(f64::total_cmp);
    let quantile = |q: f64| times_ms[((n_calls - 1) as f64 * q) as usize];
    println!("{what:24} median {:7.1} ms  p95 {:7.1} ms  CPU {cpu_ms:7.1} ms", quantile(0.5), quantile(0.95));
    Ok(())
}

/// User and system time of this process, from /proc (100 ticks a second); 0 where there is none.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|it| it.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}
