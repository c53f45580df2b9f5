use std::collections::BTreeMap;

use super::{FitError, LabeledScore, ScoreWeights, reliability};

/// Boxes whose true log-odds are 3 * model + 2 * margin - 1.
fn labeled(n: usize) -> Vec<LabeledScore> {
    let mut state = 7_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..n)
        .map(|_| {
            let (model, margin) = (random(), 2.0 * random() - 1.0);
            let chance = 1.0 / (1.0 + (1.0 - 3.0 * model - 2.0 * margin).exp());
            let mut score_parts = BTreeMap::from([("model".to_owned(), model), ("constant".to_owned(), 1.0)]);
            // Some boxes were not verified.
            if random() < 0.8 {
                score_parts.insert("contrastive_margin".to_owned(), margin);
            }
            LabeledScore { score_parts, correct: random() < chance }
        })
        .collect()
}

#[test]
fn the_weights_behind_the_labels_are_found() {
    let complete: Vec<LabeledScore> =
        labeled(60_000).into_iter().filter(|it| it.score_parts.len() == 3).collect();
    let weights = ScoreWeights::fit(&complete, "a test").unwrap();
    assert!((weights.parts["model"].weight - 3.0).abs() < 0.15, "{weights:?}");
    assert!((weights.parts["contrastive_margin"].weight - 2.0).abs() < 0.1, "{weights:?}");
    assert!(!weights.parts.contains_key("constant"));
    let at = |model: f64, margin: f64| weights.score([("model", model), ("contrastive_margin", margin)]);
    assert!((at(1.0 / 3.0, 0.0) - 0.5).abs() < 0.02);
    let text = serde_json::to_string(&weights).unwrap();
    let read: ScoreWeights = serde_json::from_str(&text).unwrap();
    assert!((read.score([("model", 0.9)]) - weights.score([("model", 0.9)])).abs() < 1e-12);
}

#[test]
fn fitted_scores_are_calibrated_on_other_boxes() {
    let all = labeled(20_000);
    let weights = ScoreWeights::fit(&all[..10_000], "a test").unwrap();
    let scores: Vec<(f64, bool)> =
        all[10_000..].iter().map(|it| (weights.score(it.parts()), it.correct)).collect();
    let found = reliability(&scores);
    assert!(found.ece < 0.02, "{found:?}");
    assert!(found.auroc.unwrap() > 0.75, "{found:?}");
    let risks: Vec<f64> = found.risk_coverage.iter().map(|it| it.risk).collect();
    assert!(risks.is_sorted(), "{risks:?}");
    assert_eq!(found.bins.iter().map(|it| it.n).sum::<usize>(), 10_000);
}

#[test]
fn measures_by_hand() {
    let found = reliability(&[(0.9, true), (0.8, true), (0.8, false), (0.1, false)]);
    // Of four pairs of right and wrong three are in order, and one is tied.
    assert_eq!(found.auroc, Some(0.875));
    // Bins: 0.9 right; 0.8 half right; 0.1 wrong.
    assert!((found.ece - (0.1 + 2.0 * 0.3 + 0.1) / 4.0).abs() < 1e-12);
    assert_eq!(found.risk_coverage.last().unwrap().risk, 0.5);
    assert_eq!(reliability(&[(1.0, true)]).auroc, None);
    assert_eq!(reliability(&[]).n, 0);
}

#[test]
fn labels_that_cannot_be_learned_from_are_refused() {
    let few = labeled(12);
    assert!(matches!(ScoreWeights::fit(&few, ""), Err(FitError::TooFew { .. })));
    let mut broken = labeled(500);
    broken[3].score_parts.insert("model".to_owned(), f64::NAN);
    assert!(matches!(ScoreWeights::fit(&broken, ""), Err(FitError::NotFinite { index: 3, .. })));
    // Separable labels still give finite weights.
    let mut separable = labeled(500);
    for it in &mut separable {
        it.correct = it.score_parts["model"] > 0.5;
    }
    assert!(ScoreWeights::fit(&separable, "").unwrap().parts["model"].weight.is_finite());
}

#[test]
fn the_shipped_weights_say_what_they_were_fitted_on_and_rise_with_the_models_score() {
    let weights: ScoreWeights =
        serde_json::from_str(include_str!("../../config/score_weights.json")).unwrap();
    assert!(weights.fitted_on.contains("florence2_tiny_tabletop"), "{}", weights.fitted_on);
    let score = |model: f64| weights.score([("model", model)]);
    assert!(score(0.1) < 0.2 && score(0.9) > 0.8 && score(0.5) < score(0.6));
}
