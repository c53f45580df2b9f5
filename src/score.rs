//! One score out of named parts, and how far it can be trusted; pure. Parts that other models add: [`verification`] and [`agreement`],
//! put beside a model by [`ensemble`].
//!
//! A detector's score, the probability of its location tokens, the margin a verifier sees: each says something about whether a
//! box is right. A logistic regression over them, fitted on labeled boxes, is the chance that it is. Measures are the field's:
//! expected calibration error over ten bins of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks"), area
//! under the ROC curve (Mann-Whitney), and risk over coverage (El-Yaniv and Wiener 2010, selective classification).

pub mod agreement;
pub mod color;
pub mod ensemble;
pub mod verification;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How parts become a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreWeights {
    /// What the weights were fitted on, for whoever wonders whether they hold elsewhere.
    pub fitted_on: String,
    /// The log-odds where every part is at its mean.
    pub bias: f64,
    /// By the part's name.
    pub parts: BTreeMap<String, PartWeight>,
}

/// What one part counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartWeight {
    /// Log-odds per unit above the mean.
    pub weight: f64,
    /// Mean over the labeled boxes; a box without this part counts as having it.
    pub mean: f64,
}

/// A labeled box: its parts by name, and whether it shows what was asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LabeledScore {
    /// As in a result's `score_parts`.
    pub score_parts: BTreeMap<String, f64>,
    /// Whether the box is right.
    pub correct: bool,
}

/// How scores and truth go together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// Boxes, and those that are right.
    pub n: usize,
    /// The right ones among them.
    pub n_correct: usize,
    /// Expected calibration error, [0, 1].
    pub ece: f64,
    /// Chance that a right box scores over a wrong one, [0, 1]; none when all are right or all wrong.
    pub auroc: Option<f64>,
    /// Ten bins of equal width; empty ones are left out.
    pub bins: Vec<ReliabilityBin>,
    /// For each tenth of the boxes, best scores first: the share of wrong ones among them, and the lowest score.
    pub risk_coverage: Vec<RiskAtCoverage>,
}

/// Scores of one bin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Upper edge.
    pub upto: f64,
    /// Boxes in it.
    pub n: usize,
    /// Their mean score.
    pub mean_score: f64,
    /// The share of right ones.
    pub accuracy: f64,
}

/// What is wrong among the best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RiskAtCoverage {
    /// Share of boxes kept.
    pub coverage: f64,
    /// Share of wrong ones among them.
    pub risk: f64,
    /// The lowest score kept.
    pub threshold: f64,
}

/// Why nothing can be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// One kind of label is missing, or there are too few.
    #[error(
        "expected at least {MIN_LABELS} right and {MIN_LABELS} wrong boxes, got {right} and {wrong}: label more"
    )]
    TooFew {
        /// Labeled right.
        right: usize,
        /// Labeled wrong.
        wrong: usize,
    },
    /// A part is not a number.
    #[error("box {index}: part {part:?} is {value}, expected a finite number")]
    NotFinite {
        /// Of the box, from 0.
        index: usize,
        /// Its name.
        part: String,
        /// As text.
        value: String,
    },
}

/// Labels of each kind that are the least to learn from.
const MIN_LABELS: usize = 10;
/// Keeps weights finite where the labels are separable: a Gaussian prior on each weight of a part scaled to unit deviation.
const RIDGE: f64 = 1.0;
const MAX_STEPS: usize = 50;
const N_BINS: usize = 10;

impl LabeledScore {
    /// Its parts, as [`ScoreWeights::score`] takes them.
    pub fn parts(&self) -> impl Iterator<Item = (&str, f64)> {
        self.score_parts.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl ScoreWeights {
    /// The chance that a box with these parts is right, [0, 1]. Parts without a weight do not count.
    pub fn score<'a>(&self, parts: impl IntoIterator<Item = (&'a str, f64)>) -> f64 {
        let log_odds =
            parts.into_iter().filter(|(_, value)| value.is_finite()).fold(self.bias, |sum, (name, value)| {
                self.parts.get(name).map_or(sum, |it| sum + it.weight * (value - it.mean))
            });
        logistic(log_odds)
    }

    /// The most likely weights under a mild prior, by Newton's method.
    ///
    /// # Errors
    /// Too few labels, or a part that is no finite number.
    pub fn fit(labeled: &[LabeledScore], fitted_on: &str) -> Result<Self, FitError> {
        let right = labeled.iter().filter(|it| it.correct).count();
        let wrong = labeled.len() - right;
        if right.min(wrong) < MIN_LABELS {
            return Err(FitError::TooFew { right, wrong });
        }
        let mut moments: BTreeMap<&str, Moments> = BTreeMap::new();
        for (index, it) in labeled.iter().enumerate() {
            for (part, &value) in &it.score_parts {
                if !value.is_finite() {
                    return Err(FitError::NotFinite { index, part: part.clone(), value: value.to_string() });
                }
                moments.entry(part).or_default().add(value);
            }
        }
        // A part that never changes says nothing.
        moments.retain(|_, it| it.deviation() > 1e-9);
        let rows: Vec<Vec<f64>> = labeled
            .iter()
            .map(|it| {
                let scaled = moments.iter().map(|(part, moments)| {
                    it.score_parts
                        .get(*part)
                        .map_or(0.0, |value| (value - moments.mean()) / moments.deviation())
                });
                std::iter::once(1.0).chain(scaled).collect()
            })
            .collect();
        let labels: Vec<f64> = labeled.iter().map(|it| f64::from(u8::from(it.correct))).collect();
        let solution = newton(&rows, &labels);
        let parts = moments.iter().zip(solution.iter().skip(1)).map(|((part, moments), weight)| {
            let weight = PartWeight { weight: weight / moments.deviation(), mean: moments.mean() };
            ((*part).to_owned(), weight)
        });
        Ok(Self { fitted_on: fitted_on.to_owned(), bias: solution[0], parts: parts.collect() })
    }
}

/// How `scores` (in [0, 1], with whether each box is right) hold up.
pub fn reliability(scores: &[(f64, bool)]) -> Reliability {
    let n = scores.len();
    let mut bins = [(0_usize, 0.0, 0_usize); N_BINS];
    for &(score, correct) in scores {
        let bin = &mut bins[((score * N_BINS as f64) as usize).min(N_BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + score, bin.2 + usize::from(correct));
    }
    let filled: Vec<ReliabilityBin> = (1..)
        .zip(bins)
        .filter(|(_, it)| it.0 > 0)
        .map(|(place, (n, sum, n_correct))| ReliabilityBin {
            upto: f64::from(place) / N_BINS as f64,
            n,
            mean_score: sum / n as f64,
            accuracy: n_correct as f64 / n as f64,
        })
        .collect();
    let ece = filled.iter().map(|it| it.n as f64 * (it.mean_score - it.accuracy).abs()).sum::<f64>();
    let mut best_first = scores.to_vec();
    best_first.sort_by(|a, b| b.0.total_cmp(&a.0));
    let risk_coverage = (1..=10)
        .map(|tenth| (n * tenth).div_ceil(10))
        .filter(|kept| *kept > 0)
        .map(|kept| RiskAtCoverage {
            coverage: kept as f64 / n as f64,
            risk: best_first[..kept].iter().filter(|it| !it.1).count() as f64 / kept as f64,
            threshold: best_first[kept - 1].0,
        })
        .collect();
    Reliability {
        n,
        n_correct: scores.iter().filter(|it| it.1).count(),
        ece: ece / (n.max(1)) as f64,
        auroc: auroc(&best_first),
        bins: filled,
        risk_coverage,
    }
}

/// Of scores sorted best first; ties count half.
fn auroc(best_first: &[(f64, bool)]) -> Option<f64> {
    let n_right = best_first.iter().filter(|it| it.1).count();
    let n_wrong = best_first.len() - n_right;
    if n_right == 0 || n_wrong == 0 {
        return None;
    }
    let (mut pairs, mut right_before) = (0.0, 0.0);
    for tied in best_first.chunk_by(|a, b| a.0 == b.0) {
        let right = tied.iter().filter(|it| it.1).count() as f64;
        let wrong = tied.len() as f64 - right;
        pairs += wrong * (right_before + 0.5 * right);
        right_before += right;
    }
    Some(pairs / (n_right as f64 * n_wrong as f64))
}

#[derive(Default)]
struct Moments {
    n: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.n += 1.0;
        self.sum += value;
        self.sum_of_squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.n.max(1.0)
    }

    fn deviation(&self) -> f64 {
        (self.sum_of_squares / self.n.max(1.0) - self.mean().powi(2)).max(0.0).sqrt()
    }
}

/// Penalized logistic regression; the first column is the bias and goes unpenalized.
fn newton(rows: &[Vec<f64>], labels: &[f64]) -> Vec<f64> {
    let n_columns = rows[0].len();
    let mut solution = nalgebra::DVector::<f64>::zeros(n_columns);
    for _ in 0..MAX_STEPS {
        let mut gradient = nalgebra::DVector::<f64>::zeros(n_columns);
        let mut hessian = nalgebra::DMatrix::<f64>::identity(n_columns, n_columns) * RIDGE;
        hessian[(0, 0)] = 1e-9;
        for column in 1..n_columns {
            gradient[column] = RIDGE * solution[column];
        }
        for (row, label) in rows.iter().zip(labels) {
            let row = nalgebra::DVector::from_column_slice(row);
            let chance = logistic(row.dot(&solution));
            gradient += &row * (chance - label);
            hessian += &row * row.transpose() * (chance * (1.0 - chance));
        }
        // Positive definite by the prior.
        let Some(cholesky) = hessian.cholesky() else { break };
        let step = cholesky.solve(&gradient);
        solution -= &step;
        if step.norm() < 1e-10 {
            break;
        }
    }
    solution.iter().copied().collect()
}

/// The part of a score with this name.
pub(crate) fn part(parts: &[(String, f64)], name: &str) -> Option<f64> {
    parts.iter().find(|it| it.0 == name).map(|it| it.1)
}

/// Log-odds to a chance.
pub(crate) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
