//! `/tf` and `/tf_static` into the engine's transforms.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use nalgebra::{Isometry3, Quaternion, Translation3, UnitQuaternion};
use r2r::QosProfile;
use r2r::geometry_msgs::msg::TransformStamped;
use r2r::tf2_msgs::msg::TFMessage;

use super::nanos_from_time;
use crate::engine::clock::StampClock;
use crate::engine::monitor::Monitor;
use crate::engine::transforms::{TransformFeed, Transforms, transforms};
use crate::transform::{StampedTransform, TransformStamp};

#[derive(Clone, Copy)]
enum Kind {
    Moving,
    Static,
}

/// Listens to TF for as long as the node lives; keeps `max_age` of history.
pub fn subscribe(
    node: &mut r2r::Node,
    max_age: Duration,
    monitor: &Monitor,
    now_ns: StampClock,
) -> r2r::Result<Transforms> {
    let (feed, known) = transforms(max_age, monitor.clone(), now_ns);
    let moving = node.subscribe::<TFMessage>("/tf", QosProfile::default().keep_last(100))?;
    let latched = QosProfile::default().keep_last(100).transient_local();
    let fixed = node.subscribe::<TFMessage>("/tf_static", latched)?;
    tokio::spawn(put_all(moving, Kind::Moving, feed.clone()));
    tokio::spawn(put_all(fixed, Kind::Static, feed));
    Ok(known)
}

async fn put_all(mut messages: impl Stream<Item = TFMessage> + Unpin, kind: Kind, feed: TransformFeed) {
    while let Some(message) = messages.next().await {
        feed.put(message.transforms.into_iter().map(|it| edge(it, kind)));
    }
}

fn edge(transform: TransformStamped, kind: Kind) -> StampedTransform {
    let (translation, rotation) = (&transform.transform.translation, &transform.transform.rotation);
    StampedTransform {
        parent: transform.header.frame_id,
        child: transform.child_frame_id,
        parent_from_child: Isometry3::from_parts(
            Translation3::new(translation.x, translation.y, translation.z),
            // The tree checks the norm.
            UnitQuaternion::new_unchecked(Quaternion::new(rotation.w, rotation.x, rotation.y, rotation.z)),
        ),
        stamp: match kind {
            Kind::Moving => TransformStamp::At(nanos_from_time(&transform.header.stamp)),
            Kind::Static => TransformStamp::Static,
        },
    }
}
