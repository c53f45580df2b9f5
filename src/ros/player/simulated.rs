//! A simulated RGB-D camera that looks at a generated scene: image, depth, `camera_info` and its place in the world.

use nalgebra::Isometry3;
use r2r::geometry_msgs::msg::{Quaternion, Transform, TransformStamped, Vector3};
use r2r::sensor_msgs::msg::{CameraInfo, Image};
use r2r::std_msgs::msg::Header;
use r2r::tf2_msgs::msg::TFMessage;
use r2r::{Publisher, QosProfile};
use serde_json::{Value, json};

use super::{ImageReliability, PlayerError};
use crate::ros::time_from_nanos;
use crate::scene::{RenderedScene, Scene, SceneConfig};

/// What the camera looks at and how it calls itself.
#[derive(Debug, Clone)]
pub struct SimulatedCameraOptions {
    /// Which scene.
    pub seed: u64,
    /// Image columns.
    pub width: u32,
    /// Image rows.
    pub height: u32,
    /// Its optical frame.
    pub frame_id: String,
    /// The frame of the table top (z = 0, z up).
    pub world_frame_id: String,
    /// Depth in millimeters as 16UC1 (most drivers) instead of meters as 32FC1 (most simulators).
    pub depth_encoding: DepthEncoding,
    /// Of image and depth.
    pub reliability: ImageReliability,
}

/// The two depth encodings of REP 118.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DepthEncoding {
    /// Millimeters, 0 = none.
    #[value(name = "16UC1")]
    Millimeters,
    /// Meters, NaN = none.
    #[value(name = "32FC1")]
    Meters,
}

/// Publishes one scene over and over on `image`, `depth`, `camera_info` and, once, `/tf_static`.
pub struct SimulatedCamera {
    scene: RenderedScene,
    options: SimulatedCameraOptions,
    image: Image,
    depth: Image,
    info: CameraInfo,
    image_publisher: Publisher<Image>,
    depth_publisher: Publisher<Image>,
    info_publisher: Publisher<CameraInfo>,
    // Latched: the transform stays available as long as this publisher lives.
    static_publisher: Publisher<TFMessage>,
}

impl SimulatedCamera {
    /// Renders the scene and makes the publishers.
    pub fn new(node: &mut r2r::Node, options: SimulatedCameraOptions) -> Result<Self, PlayerError> {
        let scene =
            Scene::generate(options.seed, &SceneConfig::camera(options.width, options.height))?.render();
        let latched = QosProfile::default().keep_last(1).transient_local();
        let qos = || options.reliability.qos();
        Ok(Self {
            image: image_message(&scene),
            depth: depth_message(&scene, options.depth_encoding),
            info: info_message(&scene),
            image_publisher: node.create_publisher("image", qos())?,
            depth_publisher: node.create_publisher("depth", qos())?,
            info_publisher: node.create_publisher("camera_info", qos())?,
            static_publisher: node.create_publisher("/tf_static", latched)?,
            scene,
            options,
        })
    }

    /// Says where the camera is; once is enough.
    pub fn publish_transform(&self, stamp_ns: i64) -> Result<(), PlayerError> {
        let mut transform = transform_message(&self.scene.world_from_camera);
        transform.header.stamp = time_from_nanos(stamp_ns);
        transform.header.frame_id.clone_from(&self.options.world_frame_id);
        transform.child_frame_id.clone_from(&self.options.frame_id);
        Ok(self.static_publisher.publish(&TFMessage { transforms: vec![transform] })?)
    }

    /// Publishes the scene as seen at `stamp_ns`.
    pub fn publish_frame(&mut self, stamp_ns: i64) -> Result<(), PlayerError> {
        let header = Header { stamp: time_from_nanos(stamp_ns), frame_id: self.options.frame_id.clone() };
        self.info.header = header.clone();
        self.image.header = header.clone();
        self.depth.header = header;
        self.info_publisher.publish(&self.info)?;
        self.depth_publisher.publish(&self.depth)?;
        self.image_publisher.publish(&self.image)?;
        Ok(())
    }

    /// The exact answers: every object with its phrase, box, position and size.
    pub fn ground_truth(&self) -> Value {
        let scene = &self.scene;
        let objects: Vec<Value> = scene
            .objects
            .iter()
            .map(|object| {
                let centroid = object.surface_centroid_in_camera;
                let center_in_camera = scene.world_from_camera.inverse() * object.center_in_world;
                json!({
                    "phrase": object.phrase(),
                    "bbox": object.bbox,
                    "visible_fraction": object.visible_fraction,
                    "surface_centroid_in_camera": centroid.map(|it| [it.x, it.y, it.z]),
                    "surface_centroid_in_world": centroid.map(|it| {
                        let it = scene.world_from_camera * it;
                        [it.x, it.y, it.z]
                    }),
                    "center_in_camera": [center_in_camera.x, center_in_camera.y, center_in_camera.z],
                    "center_in_world":
                        [object.center_in_world.x, object.center_in_world.y, object.center_in_world.z],
                    "size_m": [object.size_m.x, object.size_m.y, object.size_m.z],
                })
            })
            .collect();
        let position = scene.world_from_camera.translation.vector;
        let orientation = scene.world_from_camera.rotation.coords;
        json!({
            "seed": scene.seed,
            "width": self.options.width,
            "height": self.options.height,
            "k": scene.camera.k(),
            "frame_id": self.options.frame_id,
            "world_frame_id": self.options.world_frame_id,
            "world_from_camera": {
                "position_m": [position.x, position.y, position.z],
                "orientation_xyzw": [orientation.x, orientation.y, orientation.z, orientation.w],
            },
            "objects": objects,
        })
    }
}

fn image_message(scene: &RenderedScene) -> Image {
    let (width, height) = scene.image.dimensions();
    Image {
        width,
        height,
        encoding: "rgb8".to_owned(),
        step: width * 3,
        data: scene.image.as_raw().clone(),
        ..Default::default()
    }
}

fn depth_message(scene: &RenderedScene, encoding: DepthEncoding) -> Image {
    let (width, height) = (scene.depth.width(), scene.depth.height());
    let values = scene.depth.as_slice().iter();
    let (name, bytes_per_pixel, data): (_, _, Vec<u8>) = match encoding {
        DepthEncoding::Meters => ("32FC1", 4, values.flat_map(|depth_m| depth_m.to_le_bytes()).collect()),
        // NaN becomes 0, as the encoding wants it.
        DepthEncoding::Millimeters => {
            ("16UC1", 2, values.flat_map(|depth_m| ((depth_m * 1e3).round() as u16).to_le_bytes()).collect())
        }
    };
    Image {
        width,
        height,
        encoding: name.to_owned(),
        step: width * bytes_per_pixel,
        data,
        ..Default::default()
    }
}

fn info_message(scene: &RenderedScene) -> CameraInfo {
    let (width, height) = scene.camera.size();
    let k = scene.camera.k();
    CameraInfo {
        width,
        height,
        distortion_model: "plumb_bob".to_owned(),
        d: vec![0.0; 5],
        k: k.to_vec(),
        r: vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p: vec![k[0], 0.0, k[2], 0.0, 0.0, k[4], k[5], 0.0, 0.0, 0.0, 1.0, 0.0],
        ..Default::default()
    }
}

fn transform_message(target_from_source: &Isometry3<f64>) -> TransformStamped {
    let translation = target_from_source.translation.vector;
    let rotation = target_from_source.rotation.coords;
    TransformStamped {
        transform: Transform {
            translation: Vector3 { x: translation.x, y: translation.y, z: translation.z },
            rotation: Quaternion { x: rotation.x, y: rotation.y, z: rotation.z, w: rotation.w },
        },
        ..Default::default()
    }
}
