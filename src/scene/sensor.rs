//! What a stereo or structured-light camera makes of true depth: correlated noise and quantization of the disparity, lost and
//! flying pixels at edges, holes.

use super::random::SceneRng;
use crate::image::DepthImage;

/// A depth camera. The defaults are those of a mid-range stereo camera (50 mm baseline, 640 pixels wide, 1/32 pixel disparity
/// steps, a tenth of a pixel of noise before its spatial filter).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DepthSensor {
    /// Standard deviation of depth at 1 m, meters; grows with the square of the distance (a constant error of disparity).
    pub noise_m: f32,
    /// Depth step at 1 m, meters; grows with the square of the distance.
    pub step_m: f32,
    /// Neighbors whose depths differ by more than this share are an edge.
    pub edge_step: f32,
    /// Probability that a pixel at an edge is lost.
    pub edge_loss: f32,
    /// Probability that a pixel at an edge lies between the two surfaces.
    pub edge_flying: f32,
    /// Share of the image lost in round holes, and their largest radius in pixels.
    pub holes: (f32, u32),
}

impl Default for DepthSensor {
    fn default() -> Self {
        Self {
            noise_m: 0.0015,
            step_m: 0.001,
            edge_step: 0.02,
            edge_loss: 0.5,
            edge_flying: 0.2,
            holes: (0.04, 5),
        }
    }
}

impl DepthSensor {
    /// The image as this camera gives it, rounded to millimeters as in 16UC1. A function of the seed.
    pub fn measure(&self, truth: &DepthImage, seed: u64) -> DepthImage {
        let (width, height) = (truth.width(), truth.height());
        let mut rng = SceneRng::new(seed, 1 << 34);
        let true_m = truth.as_slice();
        let at = |x: u32, y: u32| true_m[(y * width + x) as usize];
        // Noise is white on a grid of two pixels and linear between: neighbors see the same patch.
        let (columns, rows) = (width as usize / 2 + 2, height as usize / 2 + 2);
        let grid: Vec<f32> = (0..columns * rows).map(|_| rng.bell()).collect();
        let noise = |x: u32, y: u32| {
            let (column, row) = (x as usize / 2, y as usize / 2);
            let (fx, fy) = (0.5 * (x % 2) as f32, 0.5 * (y % 2) as f32);
            let node = |c: usize, r: usize| grid[(row + r) * columns + column + c];
            let weights = [[(1.0 - fx) * (1.0 - fy), fx * (1.0 - fy)], [(1.0 - fx) * fy, fx * fy]];
            let (sum, square) = (0..4).fold((0.0, 0.0), |(sum, square), i| {
                let weight: f32 = weights[i / 2][i % 2];
                (sum + weight * node(i % 2, i / 2), square + weight * weight)
            });
            sum / square.sqrt()
        };
        let mut measured_m = Vec::with_capacity(true_m.len());
        for y in 0..height {
            for x in 0..width {
                let z = at(x, y);
                let (x1, y1) = ((x + 1).min(width - 1), (y + 1).min(height - 1));
                let around = [at(x.saturating_sub(1), y), at(x1, y), at(x, y.saturating_sub(1)), at(x, y1)];
                let other = around.into_iter().find(|it| (it - z).abs() > self.edge_step * z.min(*it));
                let chance = rng.unit();
                let z = match other {
                    Some(_) if chance < self.edge_loss => f32::NAN,
                    Some(other) if chance < self.edge_loss + self.edge_flying => z + rng.unit() * (other - z),
                    _ => z,
                };
                let noisy = z + self.noise_m * z * z * noise(x, y);
                let step = (self.step_m * noisy * noisy).max(1e-6);
                let stepped = (noisy / step).round() * step;
                measured_m.push((stepped * 1e3).round() * 1e-3);
            }
        }
        let (share, radius) = self.holes;
        let mean_area = 3.2 * (f64::from(radius) * f64::from(radius) / 3.0 + 1.0);
        let n_holes = (f64::from(share) * f64::from(width) * f64::from(height) / mean_area) as usize;
        for _ in 0..n_holes {
            let (x, y) = (rng.below(width as usize) as i64, rng.below(height as usize) as i64);
            let r = i64::from(radius.max(1)) * (rng.unit() * 1024.0) as i64 / 1024;
            for dy in -r..=r {
                for dx in -r..=r {
                    let (u, v) = (x + dx, y + dy);
                    let is_inside = (0..i64::from(width)).contains(&u) && (0..i64::from(height)).contains(&v);
                    if dx * dx + dy * dy <= r * r && is_inside {
                        measured_m[(v * i64::from(width) + u) as usize] = f32::NAN;
                    }
                }
            }
        }
        DepthImage::from_meters(width, height, measured_m).expect("one depth per pixel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_wall_has_the_noise_asked_for_and_an_edge_loses_pixels() {
        let (width, height) = (200, 100);
        let wall: Vec<f32> = (0..width * height).map(|it| if it % width < 100 { 1.0 } else { 1.5 }).collect();
        let truth = DepthImage::from_meters(width, height, wall).unwrap();
        let sensor = DepthSensor { holes: (0.0, 0), ..DepthSensor::default() };
        let seen = sensor.measure(&truth, 3);
        let (mut n, mut square) = (0.0, 0.0);
        for v in 0..height {
            for u in 0..90 {
                let error = f64::from(seen.get(u, v).unwrap()) - 1.0;
                (n, square) = (n + 1.0, square + error * error);
            }
        }
        let deviation_m = f64::sqrt(square / n);
        assert!((0.0014..0.0018).contains(&deviation_m), "{deviation_m}");
        let n_lost = (0..height).filter(|&v| seen.get(99, v).is_none()).count();
        assert!((30..70).contains(&n_lost), "{n_lost}");
        let again = sensor.measure(&truth, 3);
        assert!(again.as_slice().iter().zip(seen.as_slice()).all(|(a, b)| a.to_bits() == b.to_bits()));
        let holes = DepthSensor::default().measure(&truth, 3);
        let share = holes.as_slice().iter().filter(|it| it.is_nan()).count() as f32 / 20000.0;
        assert!((0.02..0.08).contains(&share), "{share}");
    }
}
