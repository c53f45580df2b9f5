//! What a topic is really called: the rules ROS applies to names given on the command line.
//!
//! rcl applies them to every subscription by itself, but tells nobody the outcome through r2r, and three things need it:
//! the `camera_info` beside a remapped image topic, the compressed topics below it, and the names in diagnostics.
//! Rules and their order follow <https://design.ros2.org/articles/static_remapping.html>.

/// The remapping rules of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Remapping {
    /// Fully qualified node name, such as `/ns/language_grounding`.
    node: String,
    /// (from, to), in the order given; the first that fits wins.
    rules: Vec<(String, String)>,
}

impl Remapping {
    /// From the program's arguments and the node's name and namespace as ROS knows them.
    pub fn from_args(args: impl IntoIterator<Item = String>, name: &str, namespace: &str) -> Self {
        let namespace = namespace.trim_end_matches('/');
        let mut remapping = Self { node: format!("{namespace}/{name}"), rules: Vec::new() };
        let mut in_ros_args = false;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--ros-args" => in_ros_args = true,
                "--" => in_ros_args = false,
                "-r" | "--remap" if in_ros_args => {
                    let rule = args.next().unwrap_or_default();
                    remapping.add_rule(&rule, name);
                }
                _ => {}
            }
        }
        remapping
    }

    /// The full name of `topic` after all rules.
    pub fn resolve(&self, topic: &str) -> String {
        self.explicit(topic).unwrap_or_else(|| self.expand(topic))
    }

    /// The full name of `topic` if a rule names it.
    pub fn explicit(&self, topic: &str) -> Option<String> {
        let full = self.expand(topic);
        let (_, to) = self.rules.iter().find(|(from, _)| self.expand(from) == full)?;
        Some(self.expand(to))
    }

    /// The `camera_info` that belongs to the image topic: beside it, unless a rule names it.
    pub fn camera_info(&self) -> String {
        self.explicit("camera_info").unwrap_or_else(|| self.beside("image"))
    }

    /// The `camera_info` that belongs to the depth topic: beside it, unless a rule names `depth_camera_info`.
    pub fn depth_camera_info(&self) -> String {
        self.explicit("depth_camera_info").unwrap_or_else(|| self.beside("depth"))
    }

    /// The topic a transport such as `compressed` publishes below `base`, unless a rule names it.
    pub fn below(&self, base: &str, transport: &str) -> String {
        self.explicit(&format!("{base}/{transport}"))
            .unwrap_or_else(|| format!("{}/{transport}", self.resolve(base)))
    }

    fn beside(&self, topic: &str) -> String {
        let topic = self.resolve(topic);
        let parent = topic.rsplit_once('/').map_or("", |(parent, _)| parent);
        format!("{parent}/camera_info")
    }

    /// `[node:]from:=to`, where `from` is not one of the special `__name` and `__ns`.
    fn add_rule(&mut self, rule: &str, name: &str) {
        let Some((from, to)) = rule.split_once(":=") else { return };
        let from = match from.split_once(':') {
            Some(("rostopic", topic)) => topic.trim_start_matches("//"),
            Some((node, _)) if node != name => return,
            Some((_, from)) => from,
            None => from,
        };
        if !from.starts_with("__") {
            self.rules.push((from.to_owned(), to.to_owned()));
        }
    }

    fn expand(&self, name: &str) -> String {
        if name.starts_with('/') {
            name.to_owned()
        } else if let Some(private) = name.strip_prefix("~/") {
            format!("{}/{private}", self.node)
        } else {
            let namespace = self.node.rsplit_once('/').map_or("", |(namespace, _)| namespace);
            format!("{namespace}/{name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remapping(args: &str, namespace: &str) -> Remapping {
        Remapping::from_args(args.split_whitespace().map(str::to_owned), "language_grounding", namespace)
    }

    #[test]
    fn names_resolve_as_ros_resolves_them() {
        let check = |args: &str, namespace: &str, topic: &str, expected: &str| {
            assert_eq!(remapping(args, namespace).resolve(topic), expected, "{args} {namespace} {topic}");
        };
        check("", "/", "image", "/image");
        check("", "/robot", "image", "/robot/image");
        check("", "/robot", "~/result", "/robot/language_grounding/result");
        check("--ros-args -r image:=/cam/color", "/", "image", "/cam/color");
        check("--ros-args -r image:=cam/color", "/robot", "image", "/robot/cam/color");
        check("--ros-args -r /robot/image:=/a -r image:=/b", "/robot", "image", "/a");
        check("--ros-args --remap language_grounding:image:=/mine", "/", "image", "/mine");
        check("--ros-args --remap other:image:=/mine", "/", "image", "/image");
        check("--ros-args -r __node:=x -r __ns:=/y", "/", "image", "/image");
        check("-r image:=/not/ros", "/", "image", "/image");
        check("--ros-args -p a:=1 -- -r image:=/not/ros", "/", "image", "/image");
    }

    #[test]
    fn camera_info_stands_beside_the_image() {
        let check =
            |args: &str, expected: &str| assert_eq!(remapping(args, "/").camera_info(), expected, "{args}");
        check("", "/camera_info");
        check("--ros-args -r image:=/cam/color/image_raw", "/cam/color/camera_info");
        check("--ros-args -r image:=/cam/image -r camera_info:=/k", "/k");
        let of_depth = |args: &str| remapping(args, "/").depth_camera_info();
        assert_eq!(of_depth(""), "/camera_info", "that of the color image");
        assert_eq!(of_depth("--ros-args -r depth:=/cam/depth/image_raw"), "/cam/depth/camera_info");
        assert_eq!(of_depth("--ros-args -r depth:=/cam/depth -r depth_camera_info:=/k"), "/k");
    }

    #[test]
    fn transports_stand_below_the_topic() {
        let remapped = remapping("--ros-args -r image:=/cam/image_raw", "/");
        assert_eq!(remapped.below("image", "compressed"), "/cam/image_raw/compressed");
        assert_eq!(remapped.below("depth", "compressedDepth"), "/depth/compressedDepth");
    }
}
