//! Labeled boxes in, score weights and their reliability out.
//!
//! Every second box is kept from the fit and measured on: figures on the boxes that were fitted would flatter.

use std::path::Path;

use anyhow::Context as _;
use language_grounding::score::{LabeledScore, Reliability, ScoreWeights, reliability};

pub(crate) fn run(labeled: &Path, output: Option<&Path>, fitted_on: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(labeled)
        .with_context(|| format!("cannot read the labels {}", labeled.display()))?;
    let boxes: Vec<LabeledScore> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(idx, line)| {
            serde_json::from_str(line).with_context(|| {
                format!("line {}: expected {{\"score_parts\": {{...}}, \"correct\": true or false}}", idx + 1)
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let fitted: Vec<LabeledScore> = boxes.iter().step_by(2).cloned().collect();
    let held_out = boxes.iter().skip(1).step_by(2);
    let fitted_on = if fitted_on.is_empty() { labeled.display().to_string() } else { fitted_on.to_owned() };
    let weights = ScoreWeights::fit(&fitted, &fitted_on)?;
    let (before, after): (Vec<_>, Vec<_>) = held_out
        .map(|it| {
            let model = it.score_parts.get("model").map(|score| (*score, it.correct));
            (model, (weights.score(it.parts()), it.correct))
        })
        .unzip();
    println!("{} boxes fitted, {} held out", fitted.len(), after.len());
    if let Some(before) = before.into_iter().collect::<Option<Vec<_>>>() {
        println!("\nthe model's score alone");
        show(&reliability(&before));
    }
    println!("\nall parts by the fitted weights");
    show(&reliability(&after));
    println!("\nbias {:+.3}", weights.bias);
    for (part, it) in &weights.parts {
        println!("{part}: {:+.3} per unit over {:.3}", it.weight, it.mean);
    }
    if let Some(path) = output {
        let json = serde_json::to_string_pretty(&weights)? + "\n";
        std::fs::write(path, json).with_context(|| format!("cannot write the weights {}", path.display()))?;
    }
    Ok(())
}

fn show(found: &Reliability) {
    let auroc = found.auroc.map_or("none (one kind of label only)".to_owned(), |it| format!("{it:.3}"));
    println!("{} of {} right, ECE {:.3}, AUROC {auroc}", found.n_correct, found.n, found.ece);
    println!("  score up to    boxes  mean score  right");
    for bin in &found.bins {
        println!("  {:>11.1} {:>8} {:>11.3} {:>6.3}", bin.upto, bin.n, bin.mean_score, bin.accuracy);
    }
    println!("  coverage  risk   lowest score");
    for it in &found.risk_coverage {
        println!("  {:>8.2} {:>5.3} {:>14.3}", it.coverage, it.risk, it.threshold);
    }
}
