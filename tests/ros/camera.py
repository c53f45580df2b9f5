"""A camera made of numpy: a block on a table, seen by a color and a depth camera that may be two."""

import array
import struct
import zlib

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from conftest import stamp_ns

# Center and size of the block in the frame "table" (z up, the table at z = 0), meters.
CENTER, SIZE = np.array([0.04, 0.02, 0.03]), np.array([0.10, 0.06, 0.06])
WIDTH, HEIGHT = 320, 240
K = np.array([[290.0, 0.0, 159.5], [0.0, 290.0, 119.5], [0.0, 0.0, 1.0]])
DEPTH_K = np.array([[140.0, 0.0, 99.5], [0.0, 140.0, 74.5], [0.0, 0.0, 1.0]])
DEPTH_SIZE = (200, 150)


def looking(pitch_deg=50.0, distance=0.8):
    """table_from_camera: above the near edge, looking along +y and down."""
    pitch = np.radians(pitch_deg)
    pose = np.eye(4)
    pose[:3, 0] = 1, 0, 0
    pose[:3, 1] = 0, -np.sin(pitch), -np.cos(pitch)
    pose[:3, 2] = 0, np.cos(pitch), -np.sin(pitch)
    pose[:3, 3] = 0, -np.cos(pitch) * distance, np.sin(pitch) * distance
    return pose


def beside(x=0.06, y=0.01, z=0.0, pitch=0.05):
    """color_from_depth of a depth camera that stands beside the color camera and is turned against it."""
    pose = np.eye(4)
    pose[1:3, 1:3] = [[np.cos(pitch), -np.sin(pitch)], [np.sin(pitch), np.cos(pitch)]]
    pose[:3, 3] = x, y, z
    return pose


def render(table_from_camera, k=K, size=(WIDTH, HEIGHT), block=True):
    """Depth in meters, and which pixels show the block."""
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u, float)], -1)
    rays = rays @ table_from_camera[:3, :3].T
    origin = table_from_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        table = np.where(rays[..., 2] < 0, -origin[2] / rays[..., 2], np.inf)
        a, b = (CENTER - SIZE / 2 - origin) / rays, (CENTER + SIZE / 2 - origin) / rays
    enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
    is_block = (enter < leave) & (enter > 0) & (enter < table) & block
    return np.where(is_block, enter, table).astype(np.float32), is_block


def bbox_of(is_block):
    rows, columns = np.nonzero(is_block)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def transform(parent, child, pose, stamp=None):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    if stamp is not None:
        message.header.stamp = stamp
    at, to = pose[:3, 3], message.transform.translation
    to.x, to.y, to.z = (float(it) for it in at)
    # Shepperd's method, for the matrices of this file: the largest of the four first.
    r = pose[:3, :3]
    squares = [1 + r.trace(), 1 + r[0, 0] - r[1, 1] - r[2, 2], 1 - r[0, 0] + r[1, 1] - r[2, 2],
               1 - r[0, 0] - r[1, 1] + r[2, 2]]
    largest = int(np.argmax(squares))
    s = 2 * np.sqrt(squares[largest])
    d = [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]
    q = [s / 4, d[0] / s, d[1] / s, d[2] / s] if largest == 0 else [d[largest - 1] / s] + [
        s / 4 if it == largest - 1 else (r[it, largest - 1] + r[largest - 1, it]) / s for it in range(3)]
    rotation = message.transform.rotation
    rotation.w, rotation.x, rotation.y, rotation.z = (float(it) for it in q)
    return message


def compressed_depth(depth):
    """Depth in meters as compressed_depth_image_transport sends 16UC1: a header of 12 bytes, then a PNG of millimeters."""
    rows = (depth * 1000).round().astype(">u2")
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", depth.shape[1], depth.shape[0], 16, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return CompressedImage(format="16UC1; compressedDepth png", data=array.array("B", bytes(12) + png))


class Camera:
    """Publishes what a test sets at `rate`; depth and camera_info of a depth camera of its own only where they are set."""

    def __init__(self, world, rate=10.0, depth_topic="depth"):
        self.world, self.node = world, world.node
        qos = qos_profile_sensor_data
        self.image_publisher = self.node.create_publisher(Image, "image", qos)
        self.depth_publisher = self.node.create_publisher(Image, depth_topic, qos)
        self.compressed_publisher = self.node.create_publisher(CompressedImage, f"{depth_topic}/compressedDepth", qos)
        self.info_publisher = self.node.create_publisher(CameraInfo, "camera_info", qos)
        self.depth_info_publisher = self.node.create_publisher(CameraInfo, "depth_camera/camera_info", qos)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.static_publisher = self.node.create_publisher(TFMessage, "/tf_static", latched)
        self.clock_publisher = self.node.create_publisher(Clock, "/clock", 10)
        self.frame_id, self.depth_frame_id = "color", "color"
        self.table_from_camera = looking()
        self.depth, self.is_block = render(self.table_from_camera)
        self.depth_k = None
        self.is_depth_compressed, self.depth_delay_secs = False, 0.0
        self.whole = {}
        self.n_sent = 0
        # `whole`: fields of the color camera's CameraInfo where its image is only a part of what it can see.
        # Simulated time in seconds, where a test wants it.
        self.sim_secs, self.period = None, 1.0 / rate
        self.timer = self.node.create_timer(self.period, self.send)

    def given(self, **more):
        """A model that finds the block."""
        from conftest import write_given
        boxes = [{"phrase": "block", "bbox": bbox_of(self.is_block), "score": 0.9}]
        return write_given({"boxes": boxes, **more} if more else boxes)

    def say_where(self, *transforms):
        self.static_publisher.publish(TFMessage(transforms=list(transforms)))

    def send(self):
        if self.sim_secs is not None:
            self.sim_secs += self.period
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(int(self.sim_secs * 1e9), 10**9)
            self.clock_publisher.publish(clock)
            stamp = clock.clock
        else:
            stamp = self.node.get_clock().now().to_msg()
        image = Image(encoding="rgb8", width=WIDTH, height=HEIGHT, step=3 * WIDTH)
        image.header.stamp, image.header.frame_id = stamp, self.frame_id
        image.data = array.array("B", bytes([120]) * (3 * WIDTH * HEIGHT))
        info = self.info(stamp, self.frame_id, K, WIDTH, HEIGHT)
        for name, value in self.whole.items():
            setattr(info, name, value)
        self.info_publisher.publish(info)
        if self.depth is not None:
            height, width = self.depth.shape
            if self.is_depth_compressed:
                depth, publisher = compressed_depth(self.depth), self.compressed_publisher
            else:
                depth, publisher = Image(encoding="32FC1", width=width, height=height, step=4 * width), self.depth_publisher
                depth.data = array.array("B", self.depth.tobytes())
            depth.header.stamp, depth.header.frame_id = later(stamp, self.depth_delay_secs), self.depth_frame_id
            if self.depth_k is not None:
                self.depth_info_publisher.publish(self.info(stamp, self.depth_frame_id, self.depth_k, width, height))
            publisher.publish(depth)
        self.image_publisher.publish(image)
        self.n_sent += 1

    @staticmethod
    def info(stamp, frame_id, k, width, height):
        message = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        message.header.stamp, message.header.frame_id = stamp, frame_id
        message.k = [float(it) for it in k.flatten()]
        return message


def later(stamp, secs):
    moved = type(stamp)()
    moved.sec, moved.nanosec = divmod(stamp_ns(stamp) + round(secs * 1e9), 10**9)
    return moved


def position(found):
    at = found.pose.pose.pose.position
    return np.array([at.x, at.y, at.z])


def rotation(pose):
    """The rotation matrix of a geometry_msgs/Pose."""
    q = pose.orientation
    w, x, y, z = q.w, q.x, q.y, q.z
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])


def seconds(stamp):
    return stamp_ns(stamp) * 1e-9
