//! Places within a thing: its middle, an edge, a corner, a side, the gap between two.

use crate::instruction::types::{ObjectReference, RelationKind};

/// The place within a thing that "at the center of it" names: "in the middle of the table", "from table center".
pub(super) fn region(
    kind: RelationKind,
    mut landmarks: Vec<ObjectReference>,
    said: &str,
) -> (RelationKind, Vec<ObjectReference>) {
    let holds = kind == RelationKind::To && said == "to"
        || matches!(
            kind,
            RelationKind::On
                | RelationKind::In
                | RelationKind::Near
                | RelationKind::From
                | RelationKind::NextTo
        );
    let [landmark] = &mut landmarks[..] else { return (kind, landmarks) };
    let is_gap = matches!(landmark.noun.as_str(), "gap" | "space" | "area" | "spot" | "region");
    let between = landmark.relations.iter().position(|it| it.kind == RelationKind::Between);
    if let Some(between) = between.filter(|_| is_gap) {
        return (RelationKind::Between, landmark.relations.swap_remove(between).landmarks);
    }
    if !holds || !landmark.orders.is_empty() || !landmark.attributes.is_empty() {
        return (kind, landmarks);
    }
    let place = match landmark.noun.as_str() {
        "center" | "centre" | "middle" => RelationKind::AtCenterOf,
        "edge" => RelationKind::AtEdgeOf,
        "corner" => RelationKind::AtCornerOf,
        "front" => RelationKind::AtFrontOf,
        "back" | "rear" => RelationKind::AtBackOf,
        "left" | "far left" => RelationKind::AtLeftOf,
        "right" | "far right" => RelationKind::AtRightOf,
        _ => return (kind, landmarks),
    };
    match landmark.whole.take() {
        Some(whole) => (place, vec![*whole]),
        None => (kind, landmarks),
    }
}
