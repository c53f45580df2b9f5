//! Textured triangle meshes and where a ray meets them, through a tree of boxes; a folder of them is a [`MeshLibrary`].

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use nalgebra::Vector3;
use serde::Deserialize;

use super::color::Color;
use super::shape::Hit;

type Vec3 = Vector3<f32>;

/// Triangles in one leaf of the tree of boxes.
const LEAF: usize = 4;

/// The contents of one file of a library's folder, by its name there.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<Vec<u8>>;

/// Models to furnish scenes with: the folder that `training/meshes.py` writes.
#[derive(Debug, Clone)]
pub struct MeshLibrary {
    pub(super) models: Vec<Model>,
    /// Pictures of table tops.
    pub(super) tables: Vec<Arc<Texture>>,
}

/// Why a mesh library could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; training/meshes.py makes the folder")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A picture cannot be decoded.
    #[error("cannot decode {path}: {source}")]
    Picture {
        /// The file.
        path: String,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A file says something that makes no sense.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: String,
        /// What was expected and what came.
        problem: String,
    },
}

/// One entry of the library.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) name: Arc<str>,
    pub(super) color: Option<Color>,
    pub(super) role: Role,
    /// It may be given another color.
    pub(super) paint: bool,
    /// Height of the ground inside it on which something can stand, meters.
    pub(super) floor: Option<f32>,
    /// Something can stand on it.
    pub(super) top: bool,
    pub(super) mesh: Arc<Mesh>,
}

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// Anywhere on the table.
    Object,
    /// Large, one or two in a scene.
    Furniture,
    /// A robot arm, mounted behind the table and reaching over it.
    Arm,
}

/// Triangles that stand on z = 0 around the z axis, meters.
#[derive(Debug)]
pub(super) struct Mesh {
    triangles: Vec<Triangle>,
    nodes: Vec<Node>,
    materials: Vec<Material>,
}

/// A picture of linear reflectance.
#[derive(Debug)]
pub(super) struct Texture {
    width: usize,
    height: usize,
    texels: Vec<[u8; 3]>,
}

#[derive(Debug, Clone, Copy)]
struct Triangle {
    corners: [Vec3; 3],
    uv: [[f32; 2]; 3],
    material: u16,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    low: Vec3,
    high: Vec3,
    /// First triangle of a leaf, or the second child (the first one follows its parent).
    start: u32,
    /// Triangles of a leaf; 0 for an inner node.
    count: u32,
    /// Along which the children of an inner node lie apart, low side first.
    axis: u8,
}

#[derive(Debug, Default)]
struct Material {
    albedo: Vec3,
    texture: Option<Arc<Texture>>,
}

#[derive(Deserialize)]
struct Manifest {
    models: Vec<Entry>,
    tables: Vec<String>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    color: Option<Color>,
    role: Role,
    #[serde(default)]
    paint: bool,
    floor: Option<f32>,
    #[serde(default)]
    top: bool,
}

impl MeshLibrary {
    /// From `manifest.json` and everything it names; `read` has the files of the folder.
    pub fn load(read: ReadFile<'_>) -> Result<Self, MeshError> {
        let path = "manifest.json".to_owned();
        let manifest: Manifest = serde_json::from_str(&text_of(&path, read)?)
            .map_err(|it| MeshError::Content { path: path.clone(), problem: it.to_string() })?;
        let tables = manifest.tables.iter().map(|it| Texture::load(it, read).map(Arc::new));
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let models = manifest.models.into_iter().map(|it| {
            Ok(Model {
                mesh: Arc::new(Mesh::load(&it.name, read)?),
                name: it.name.into(),
                color: it.color,
                role: it.role,
                paint: it.paint,
                floor: it.floor,
                top: it.top,
            })
        });
        let models = models.collect::<Result<Vec<_>, MeshError>>()?;
        if !models.iter().any(|it| it.role == Role::Object) {
            let problem = "expected at least one model of role \"object\", found none".to_owned();
            return Err(MeshError::Content { path, problem });
        }
        Ok(Self { models, tables })
    }
}

impl Mesh {
    /// The first meeting after `t_min` and its reflectance. `direction` has length 1.
    pub(super) fn hit(&self, origin: &Vec3, direction: &Vec3, t_min: f32) -> Option<(Hit, Vec3)> {
        let (at, t, u, v) = self.search(origin, direction, t_min, false)?;
        let triangle = &self.triangles[at];
        let [a, b, c] = triangle.corners;
        let normal = (b - a).cross(&(c - a)).try_normalize(0.0).unwrap_or_else(Vec3::z);
        Some((Hit { t, normal }, self.albedo(triangle, u, v)))
    }

    /// Whether there is any meeting after `t_min`.
    pub(super) fn is_hit(&self, origin: &Vec3, direction: &Vec3, t_min: f32) -> bool {
        self.search(origin, direction, t_min, true).is_some()
    }

    /// The nearest meeting, or any one: triangle, distance and the weights of its second and third corner.
    fn search(
        &self,
        origin: &Vec3,
        direction: &Vec3,
        t_min: f32,
        any: bool,
    ) -> Option<(usize, f32, f32, f32)> {
        let inverse = direction.map(|it| if it.abs() < 1e-12 { 1e12 } else { 1.0 / it });
        let mut nearest = f32::INFINITY;
        let mut best = None;
        let mut waiting = [0u32; 64];
        let mut n_waiting = 1;
        while n_waiting > 0 {
            n_waiting -= 1;
            let index = waiting[n_waiting] as usize;
            let node = &self.nodes[index];
            if !node.is_met(origin, &inverse, t_min, nearest) {
                continue;
            }
            if node.count == 0 {
                // The child that the ray reaches first goes on top.
                let (low, high) = (index as u32 + 1, node.start);
                let (near, far) =
                    if direction[usize::from(node.axis)] > 0.0 { (low, high) } else { (high, low) };
                waiting[n_waiting] = far;
                waiting[n_waiting + 1] = near;
                n_waiting += 2;
                continue;
            }
            for at in node.start..node.start + node.count {
                let met = self.triangles[at as usize].hit(origin, direction);
                if let Some((t, u, v)) = met.filter(|&(t, ..)| t > t_min && t < nearest) {
                    nearest = t;
                    best = Some((at as usize, t, u, v));
                    if any {
                        return best;
                    }
                }
            }
        }
        best
    }

    /// Lowest and highest corner.
    pub(super) fn bounds(&self) -> (Vec3, Vec3) {
        (self.nodes[0].low, self.nodes[0].high)
    }

    fn albedo(&self, triangle: &Triangle, u: f32, v: f32) -> Vec3 {
        let material = &self.materials[usize::from(triangle.material)];
        let Some(texture) = &material.texture else { return material.albedo };
        let [a, b, c] = triangle.uv;
        let mix = |i: usize| a[i] * (1.0 - u - v) + b[i] * u + c[i] * v;
        texture.at(mix(0), 1.0 - mix(1))
    }

    fn load(name: &str, read: ReadFile<'_>) -> Result<Self, MeshError> {
        let (numbers, materials) = read_materials(&format!("{name}.mtl"), read)?;
        let path = format!("{name}.obj");
        let triangles = parse_obj(&text_of(&path, read)?, &numbers)
            .map_err(|problem| MeshError::Content { path: path.clone(), problem })?;
        if triangles.is_empty() {
            return Err(MeshError::Content { path, problem: "expected triangles, found none".to_owned() });
        }
        Ok(Self::new(triangles, materials))
    }

    fn new(mut triangles: Vec<Triangle>, materials: Vec<Material>) -> Self {
        let mut nodes = Vec::with_capacity(triangles.len());
        let n = triangles.len();
        split(&mut triangles, 0..n, &mut nodes);
        Self { triangles, nodes, materials }
    }
}

impl Triangle {
    /// Möller and Trumbore, 1997: distance and the weights of the second and third corner.
    fn hit(&self, origin: &Vec3, direction: &Vec3) -> Option<(f32, f32, f32)> {
        let [a, b, c] = self.corners;
        let (ab, ac) = (b - a, c - a);
        let p = direction.cross(&ac);
        let determinant = ab.dot(&p);
        if determinant.abs() < 1e-14 {
            return None;
        }
        let scale = 1.0 / determinant;
        let from_a = origin - a;
        let u = from_a.dot(&p) * scale;
        if !(0.0..=1.0).contains(&u) {
            return None;
        }
        let q = from_a.cross(&ab);
        let v = direction.dot(&q) * scale;
        (v >= 0.0 && u + v <= 1.0).then(|| (ac.dot(&q) * scale, u, v))
    }

    fn center(&self) -> Vec3 {
        (self.corners[0] + self.corners[1] + self.corners[2]) / 3.0
    }
}

impl Node {
    fn is_met(&self, origin: &Vec3, inverse: &Vec3, t_min: f32, t_max: f32) -> bool {
        let a = (self.low - origin).component_mul(inverse);
        let b = (self.high - origin).component_mul(inverse);
        let enter = a.inf(&b).max().max(t_min);
        let leave = a.sup(&b).min().min(t_max);
        enter <= leave
    }
}

impl Texture {
    fn load(path: &str, read: ReadFile<'_>) -> Result<Self, MeshError> {
        let picture = image::load_from_memory(&bytes_of(path, read)?)
            .map_err(|source| MeshError::Picture { path: path.to_owned(), source })?
            .into_rgb8();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Ok(Self { width, height, texels: picture.pixels().map(|it| it.0).collect() })
    }

    /// `x` runs right and `y` down; both repeat with period 1.
    pub(super) fn at(&self, x: f32, y: f32) -> Vec3 {
        let column = ((x.rem_euclid(1.0) * self.width as f32) as usize).min(self.width - 1);
        let row = ((y.rem_euclid(1.0) * self.height as f32) as usize).min(self.height - 1);
        let [r, g, b] = self.texels[row * self.width + column];
        // The renderer's own transfer curve, backward; squares are near enough to powers of 2.2.
        Vec3::new(f32::from(r), f32::from(g), f32::from(b)).map(|it| (it / 255.0).powi(2))
    }
}

/// Orders `triangles[range]` by a tree of boxes that is appended to `nodes`.
fn split(triangles: &mut [Triangle], range: std::ops::Range<usize>, nodes: &mut Vec<Node>) {
    let mut low = Vec3::repeat(f32::INFINITY);
    let mut high = Vec3::repeat(f32::NEG_INFINITY);
    for corner in triangles[range.clone()].iter().flat_map(|it| &it.corners) {
        (low, high) = (low.inf(corner), high.sup(corner));
    }
    let own = nodes.len();
    nodes.push(Node { low, high, start: range.start as u32, count: range.len() as u32, axis: 0 });
    if range.len() <= LEAF {
        return;
    }
    let axis = (high - low).imax();
    let middle = range.len() / 2;
    triangles[range.clone()]
        .select_nth_unstable_by(middle, |a, b| a.center()[axis].total_cmp(&b.center()[axis]));
    let middle = range.start + middle;
    split(triangles, range.start..middle, nodes);
    nodes[own] = Node { low, high, start: nodes.len() as u32, count: 0, axis: axis as u8 };
    split(triangles, middle..range.end, nodes);
}

fn bytes_of(path: &str, read: ReadFile<'_>) -> Result<Vec<u8>, MeshError> {
    read(path).map_err(|source| MeshError::Read { path: path.to_owned(), source })
}

fn text_of(path: &str, read: ReadFile<'_>) -> Result<String, MeshError> {
    String::from_utf8(bytes_of(path, read)?).map_err(|_| MeshError::Content {
        path: path.to_owned(),
        problem: "expected text in UTF-8, got other bytes".to_owned(),
    })
}

/// The materials of a .mtl file and their numbers by name.
fn read_materials(
    path: &str,
    read: ReadFile<'_>,
) -> Result<(HashMap<String, u16>, Vec<Material>), MeshError> {
    let (mut numbers, mut materials) = (HashMap::new(), Vec::<Material>::new());
    for line in text_of(path, read)?.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, materials.last_mut()) {
            ("newmtl", _) => {
                numbers.insert(rest.to_owned(), materials.len() as u16);
                materials.push(Material::default());
            }
            ("Kd", Some(it)) => {
                let problem = || format!("expected three numbers, got {line:?}");
                let color = floats::<3>(rest)
                    .ok_or_else(|| MeshError::Content { path: path.to_owned(), problem: problem() })?;
                it.albedo = Vec3::from(color).map(|c| c.powi(2));
            }
            ("map_Kd", Some(it)) => it.texture = Some(Arc::new(Texture::load(rest, read)?)),
            _ => {}
        }
    }
    Ok((numbers, materials))
}

/// The subset of Wavefront OBJ that the library uses: `v`, `vt`, `usemtl` and triangles `f a/ta b/tb c/tc`.
fn parse_obj(text: &str, materials: &HashMap<String, u16>) -> Result<Vec<Triangle>, String> {
    let (mut points, mut uvs, mut triangles) = (Vec::new(), Vec::new(), Vec::new());
    let mut material = 0;
    for (number, line) in text.lines().enumerate() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let parsed = match word {
            "v" => floats::<3>(rest).map(|it| points.push(Vec3::from(it))),
            "vt" => floats::<2>(rest).map(|it| uvs.push(it)),
            "usemtl" => materials.get(rest).map(|&it| material = it),
            "f" => triangle(rest, &points, &uvs, material).map(|it| triangles.push(it)),
            _ => Some(()),
        };
        parsed.ok_or_else(|| format!("line {}: cannot make sense of {line:?}", number + 1))?;
    }
    Ok(triangles)
}

fn triangle(text: &str, points: &[Vec3], uvs: &[[f32; 2]], material: u16) -> Option<Triangle> {
    let mut corners = [Vec3::zeros(); 3];
    let mut uv = [[0.0; 2]; 3];
    let mut words = text.split_whitespace();
    for i in 0..3 {
        let (point, place) = words.next()?.split_once('/')?;
        corners[i] = *points.get(point.parse::<usize>().ok()?.checked_sub(1)?)?;
        uv[i] = *uvs.get(place.parse::<usize>().ok()?.checked_sub(1)?)?;
    }
    words.next().is_none().then_some(Triangle { corners, uv, material })
}

fn floats<const N: usize>(text: &str) -> Option<[f32; N]> {
    let mut values = [0.0; N];
    let mut words = text.split_whitespace();
    for it in &mut values {
        *it = words.next()?.parse().ok().filter(|it: &f32| it.is_finite())?;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use nalgebra::UnitVector3;

    use super::*;

    /// A cube of side 2 around the origin, as OBJ text with one material.
    fn cube() -> Mesh {
        let mut text = String::from("usemtl m\n");
        for i in 0..8 {
            let at = |bit: i32| if i >> bit & 1 == 1 { 1 } else { -1 };
            text += &format!("v {} {} {}\nvt 0 0\n", at(0), at(1), at(2));
        }
        for quad in [[1, 2, 4, 3], [5, 6, 8, 7], [1, 2, 6, 5], [3, 4, 8, 7], [1, 3, 7, 5], [2, 4, 8, 6]] {
            let [a, b, c, d] = quad;
            text += &format!("f {a}/1 {b}/1 {c}/1\nf {a}/1 {c}/1 {d}/1\n");
        }
        let triangles = parse_obj(&text, &HashMap::from([("m".to_owned(), 0)])).unwrap();
        Mesh::new(triangles, vec![Material { albedo: Vec3::new(0.1, 0.2, 0.3), texture: None }])
    }

    #[test]
    fn rays_meet_a_cube_of_triangles_where_the_cuboid_is() {
        let mesh = cube();
        let cuboid = super::super::shape::Shape::Cuboid { center: Vec3::zeros(), half: Vec3::repeat(1.0) };
        let mut rng = super::super::random::SceneRng::new(3, 0);
        let mut met = 0;
        for _ in 0..2000 {
            let mut point = || Vec3::from_fn(|_, _| rng.range(-1.0, 1.0));
            let origin = UnitVector3::new_normalize(point()).into_inner() * 4.0;
            let direction = UnitVector3::new_normalize(point() * 1.6 - origin).into_inner();
            let (got, want) = (mesh.hit(&origin, &direction, 1e-3), cuboid.hit(&origin, &direction, 1e-3));
            // Rays along an edge may go either way.
            let Some((hit, albedo)) = got else {
                let grazing = want.is_some_and(|it| {
                    let at = (origin + direction * it.t).abs();
                    at.iter().filter(|it| **it > 0.999).count() > 1
                });
                assert!(want.is_none() || grazing);
                continue;
            };
            let want = want.unwrap();
            assert!((hit.t - want.t).abs() < 1e-3, "{} {}", hit.t, want.t);
            assert!(hit.normal.dot(&want.normal).abs() > 0.999);
            assert_eq!(albedo, Vec3::new(0.1, 0.2, 0.3));
            met += 1;
        }
        assert!(met > 500, "{met}");
        assert_eq!(mesh.bounds(), (Vec3::repeat(-1.0), Vec3::repeat(1.0)));
    }

    #[test]
    fn nonsense_is_named_with_its_line() {
        let none = HashMap::new();
        let error = parse_obj("v 0 0 0\nv 1 zero 2\n", &none).unwrap_err();
        assert_eq!(error, "line 2: cannot make sense of \"v 1 zero 2\"");
        assert!(parse_obj("v 0 0 0\nvt 0 0\nf 1/1 1/1 2/1", &none).is_err());
        let missing = MeshLibrary::load(&|_| Err(io::ErrorKind::NotFound.into())).unwrap_err().to_string();
        assert!(missing.contains("manifest.json") && missing.contains("training/meshes.py"), "{missing}");
    }
}
