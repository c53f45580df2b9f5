//! Every relation and ranking on random tables: answers by definitions of their own, with margins, over shaken positions and boxes.

use nalgebra::{Point3, Vector3};

use super::{Depth, Random, Thing, ambiguous, assert_right, found, mugs, one_of, thing};

const BOTH: [Depth; 2] = [Depth::With, Depth::Without];

/// The right answer of a layout; none where it could be seen either way.
type Answer = fn(&[Thing]) -> Option<String>;

#[track_caller]
fn check(text: &str, depths: &[Depth], table: fn(&mut Random) -> Vec<Thing>, answer: Answer) {
    for &depth in depths {
        assert_right(text, depth, table, answer);
    }
}

#[test]
fn near_and_farthest() {
    check("the mug near the plate", &BOTH, plates_and_mugs, |it| {
        all_clear(it, |mug| match distance_to(mug, &it[0]) {
            d if d < 0.25 => Some(true),
            d if d > 0.65 => Some(false),
            _ => None,
        })
    });
    check("the mug farthest from the plate", &BOTH, plates_and_mugs, |it| {
        let mut by_distance: Vec<(f64, usize)> =
            mugs(it).into_iter().map(|mug| (distance_to(&it[mug], &it[0]), mug)).collect();
        by_distance.sort_by(|a, b| b.0.total_cmp(&a.0));
        let is_clear = by_distance.get(1).is_none_or(|next| by_distance[0].0 > 1.7 * next.0 + 0.05);
        by_distance.first().filter(|_| is_clear).map(|it| found(&[it.1]))
    });
}

#[test]
fn over_and_under() {
    check("the mug under the shelf", &[Depth::With], shelf_and_mugs, |it| {
        all_clear(it, |mug| is_within(mug, &it[0]))
    });
    check(
        "the mug above the shelf",
        &[Depth::With],
        |random| {
            let mut things = shelf_and_mugs(random);
            things[0].foot.z = 0.0;
            for it in &mut things[1..] {
                it.foot.z = 0.25;
            }
            things
        },
        |it| all_clear(it, |mug| is_within(mug, &it[0])),
    );
    check(
        "the mug from the plate",
        &BOTH,
        |random| {
            let mut things = plates_and_mugs(random);
            let plate = things[0].foot;
            if things.len() > 1 && random.next().is_multiple_of(2) {
                things[1].foot =
                    plate + Vector3::new(random.within(-0.04, 0.04), random.within(-0.04, 0.04), 0.02);
            }
            things
        },
        |it| {
            all_clear(it, |mug| {
                let offset = mug.foot - it[0].foot;
                // Before or behind it in the image.
                let is_unclear = offset.x.abs() < 0.14 && offset.y.abs() < 0.25;
                if mug.foot.z > 0.0 { Some(true) } else { (!is_unclear).then_some(false) }
            })
        },
    );
}

#[test]
fn regions_of_a_tray() {
    const MIDDLE: f64 = 0.15;
    check("the mug at the center of the tray", &BOTH, tray_and_mugs, |it| {
        all_clear(it, |mug| Some(column(mug).abs() < MIDDLE && row(mug).abs() < MIDDLE))
    });
    check("the mug at the edge of the tray", &BOTH, tray_and_mugs, |it| {
        all_clear(it, |mug| Some(column(mug).abs() > MIDDLE || row(mug).abs() > MIDDLE))
    });
    check("the mug at the corner of the tray", &BOTH, tray_and_mugs, |it| {
        all_clear(it, |mug| Some(column(mug).abs() > MIDDLE && row(mug).abs() > MIDDLE))
    });
    check("the mug at the front of the tray", &BOTH, tray_and_mugs, |it| {
        all_clear(it, |mug| Some(row(mug) < -MIDDLE))
    });
    check("the mug at the back of the tray", &BOTH, tray_and_mugs, |it| {
        all_clear(it, |mug| Some(row(mug) > MIDDLE))
    });
    check("the mug at the left edge of the tray", &BOTH, tray_and_mugs, |it| {
        all_clear(it, |mug| Some(column(mug) < -MIDDLE))
    });
    check("the mug at the right edge of the tray", &BOTH, tray_and_mugs, |it| {
        all_clear(it, |mug| Some(column(mug) > MIDDLE))
    });
}

#[test]
fn sizes_and_heights() {
    check(
        "the largest mug",
        &BOTH,
        |random| mugs_of_sizes(random, [1.0, 1.0]),
        |it| extreme(it, |mug| -mug.size.x),
    );
    check(
        "the smallest mug",
        &BOTH,
        |random| mugs_of_sizes(random, [1.0, 1.0]),
        |it| extreme(it, |mug| mug.size.x),
    );
    check(
        "the tallest mug",
        &BOTH,
        |random| mugs_of_sizes(random, [0.0, 1.0]),
        |it| extreme(it, |mug| -mug.size.z),
    );
    check(
        "the shortest mug",
        &BOTH,
        |random| mugs_of_sizes(random, [0.0, 1.0]),
        |it| extreme(it, |mug| mug.size.z),
    );
    check(
        "the widest mug",
        &BOTH,
        |random| mugs_of_sizes(random, [1.0, 0.0]),
        |it| extreme(it, |mug| -mug.size.x),
    );
    check(
        "the narrowest mug",
        &BOTH,
        |random| mugs_of_sizes(random, [1.0, 0.0]),
        |it| extreme(it, |mug| mug.size.x),
    );
    check("the highest mug", &BOTH, mugs_at_heights, |it| ranked_by(it, |mug| -mug.foot.z));
    check("the lowest mug", &BOTH, mugs_at_heights, |it| ranked_by(it, |mug| mug.foot.z));
}

#[test]
fn places_in_a_row() {
    check("the left mug", &[Depth::Without], row_of_mugs, |it| ranked_by(it, |mug| mug.foot.x));
    check("the rightmost mug", &[Depth::Without], row_of_mugs, |it| ranked_by(it, |mug| -mug.foot.x));
    check("the nearest mug", &[Depth::Without], plates_and_mugs, |it| ranked_by(it, |mug| mug.foot.y));
    check("the farthest mug", &BOTH, plates_and_mugs, |it| ranked_by(it, |mug| -mug.foot.y));
    check("the middle mug", &BOTH, row_of_mugs, |it| {
        let mut order = mugs(it);
        order.sort_by(|&a, &b| it[a].foot.x.total_cmp(&it[b].foot.x));
        match order[..] {
            [] => Some("NOT_FOUND".to_owned()),
            [one] | [_, one, _] => Some(found(&[one])),
            [a, b] => Some(ambiguous(&[a, b])),
            _ => None,
        }
    });
}

/// Which plate is meant is not said: the mug tells, and what is said of the plate counts.
#[test]
fn landmarks_that_are_several() {
    check(
        "the mug next to the plate",
        &BOTH,
        |random| plates_with_mugs(random, false),
        |it| {
            all_clear(it, |mug| {
                let nearest = plates(it).map(|plate| distance_to(mug, plate)).fold(f64::INFINITY, f64::min);
                match nearest {
                    d if (0.15..0.2).contains(&d) => Some(true),
                    d if d > 0.45 => Some(false),
                    _ => None,
                }
            })
        },
    );
    check(
        "the mug next to the plate to the left of the bowl",
        &BOTH,
        |random| plates_with_mugs(random, true),
        |it| {
            let bowl = it.iter().find(|it| it.phrase == "bowl")?;
            all_clear(it, |mug| {
                let mut fits = false;
                for plate in plates(it) {
                    let (dx, dy) = (plate.foot.x - bowl.foot.x, plate.foot.y - bowl.foot.y);
                    let is_left = match dx {
                        dx if dx < -0.15 && dy.abs() < 0.7 * -dx => true,
                        dx if dx > 0.05 => false,
                        _ => return None,
                    };
                    fits |= match distance_to(mug, plate) {
                        d if (0.15..0.2).contains(&d) => is_left,
                        d if d > 0.45 => false,
                        _ => return None,
                    };
                }
                Some(fits)
            })
        },
    );
}

/// The mugs for which `fits` says yes; none where it cannot say for one of them.
fn all_clear(things: &[Thing], fits: impl Fn(&Thing) -> Option<bool>) -> Option<String> {
    let mut fit = Vec::new();
    for mug in mugs(things) {
        if fits(&things[mug])? {
            fit.push(mug);
        }
    }
    match fit[..] {
        [] | [_] => one_of(&fit),
        _ => Some(ambiguous(&fit)),
    }
}

/// The one mug that comes first by a measure of its size, by a third before the next.
fn extreme(things: &[Thing], key: fn(&Thing) -> f64) -> Option<String> {
    let mut order = mugs(things);
    order.sort_by(|&a, &b| key(&things[a]).total_cmp(&key(&things[b])));
    let ratio = |a: f64, b: f64| (a / b).max(b / a);
    let is_clear = order.get(1).is_none_or(|&next| ratio(key(&things[order[0]]), key(&things[next])) > 1.33);
    is_clear.then(|| order.first().map_or("NOT_FOUND".to_owned(), |it| found(&[*it])))
}

/// The one mug that comes first by a place, 5 cm before the next.
fn ranked_by(things: &[Thing], key: fn(&Thing) -> f64) -> Option<String> {
    let mut order = mugs(things);
    order.sort_by(|&a, &b| key(&things[a]).total_cmp(&key(&things[b])));
    let is_clear = order.get(1).is_none_or(|&next| key(&things[next]) - key(&things[order[0]]) > 0.05);
    is_clear.then(|| order.first().map_or("NOT_FOUND".to_owned(), |it| found(&[*it])))
}

fn distance_to(a: &Thing, b: &Thing) -> f64 {
    (a.foot - b.foot).xy().norm()
}

/// Well over or under a slab, or well beside it.
fn is_within(it: &Thing, slab: &Thing) -> Option<bool> {
    let beyond = |a: f64, b: f64, size: f64| (a - b).abs() - 0.5 * size;
    let beyond = beyond(it.foot.x, slab.foot.x, slab.size.x).max(beyond(it.foot.y, slab.foot.y, slab.size.y));
    match beyond {
        it if it < -0.05 => Some(true),
        it if it > 0.09 => Some(false),
        _ => None,
    }
}

/// Where on the tray, from -0.5 to 0.5.
fn column(mug: &Thing) -> f64 {
    mug.foot.x / TRAY.x
}

fn row(mug: &Thing) -> f64 {
    mug.foot.y / TRAY.y
}

fn plates(things: &[Thing]) -> impl Iterator<Item = &Thing> {
    things.iter().filter(|it| it.phrase == "plate")
}

const TRAY: Vector3<f64> = Vector3::new(0.6, 0.45, 0.02);

/// Adds up to `n` mugs where `place` puts them, none within 10 cm of another.
fn add_mugs(
    things: &mut Vec<Thing>,
    n: u64,
    random: &mut Random,
    place: impl Fn(&mut Random) -> Point3<f64>,
) {
    let n_before = things.len();
    for _ in 0..6 * n {
        if (things.len() - n_before) as u64 == n {
            return;
        }
        let mug = Thing { foot: place(random), ..thing("mug", 0.0, 0.0) };
        if things[n_before..].iter().all(|it| (it.foot - mug.foot).norm() > 0.10) {
            things.push(mug);
        }
    }
}

fn anywhere(random: &mut Random) -> Point3<f64> {
    Point3::new(random.within(-0.45, 0.45), random.within(-0.25, 0.4), 0.0)
}

/// A plate, and none to four mugs that do not touch it.
fn plates_and_mugs(random: &mut Random) -> Vec<Thing> {
    let plate = thing("plate", random.within(-0.3, 0.3), random.within(-0.2, 0.3));
    let mut things = vec![Thing { size: Vector3::new(0.18, 0.18, 0.02), ..plate }];
    let n = random.next() % 5;
    add_mugs(&mut things, n, random, anywhere);
    let plate = things[0].clone();
    things.retain(|it| it.phrase != "mug" || distance_to(it, &plate) > 0.15);
    things
}

/// A slab at some height, and none to three mugs on the table.
fn shelf_and_mugs(random: &mut Random) -> Vec<Thing> {
    let foot = Point3::new(random.within(-0.15, 0.15), random.within(-0.1, 0.2), 0.3);
    let mut things = vec![Thing { phrase: "shelf", foot, size: Vector3::new(0.4, 0.3, 0.02) }];
    let n = random.next() % 4;
    add_mugs(&mut things, n, random, anywhere);
    things
}

/// A tray, and none to three mugs on it: in its middle, its corners and the middles of its sides.
fn tray_and_mugs(random: &mut Random) -> Vec<Thing> {
    let mut things = vec![Thing { phrase: "tray", foot: Point3::origin(), size: TRAY }];
    let n = random.next() % 4;
    add_mugs(&mut things, n, random, |random| {
        let mut place = || [-0.42, 0.0, 0.42][(random.next() % 3) as usize];
        let (column, row) = (place(), place());
        Point3::new(
            TRAY.x * column + random.within(-0.02, 0.02),
            TRAY.y * row + random.within(-0.015, 0.015),
            TRAY.z,
        )
    });
    things
}

/// None to four mugs side by side.
fn row_of_mugs(random: &mut Random) -> Vec<Thing> {
    let mut things = vec![thing("plate", 0.0, 0.35)];
    let n = random.next() % 5;
    add_mugs(&mut things, n, random, |random| {
        Point3::new(random.within(-0.45, 0.45), random.within(-0.01, 0.01), 0.0)
    });
    things
}

/// Side by side, scaled in width and height by a random power of these.
fn mugs_of_sizes(random: &mut Random, [width, height]: [f64; 2]) -> Vec<Thing> {
    let mut things = row_of_mugs(random);
    for it in &mut things[1..] {
        // Off the middle of the image the sides of things are seen too, and make them wider.
        it.foot.x *= 0.5;
        let scale = random.within(0.7_f64.ln(), 1.5_f64.ln());
        let side_m = 0.06 * (width * scale).exp();
        it.size = Vector3::new(side_m, side_m, 0.08 * (height * scale).exp());
    }
    things
}

fn mugs_at_heights(random: &mut Random) -> Vec<Thing> {
    let mut things = row_of_mugs(random);
    for it in &mut things[1..] {
        it.foot.z = random.within(0.0, 0.4);
    }
    things
}

/// Two plates far from each other, each perhaps with a mug beside it, a mug somewhere, and a bowl if asked for.
fn plates_with_mugs(random: &mut Random, with_bowl: bool) -> Vec<Thing> {
    let plate = |x: f64, y: f64| Thing { size: Vector3::new(0.18, 0.18, 0.02), ..thing("plate", x, y) };
    let mut things = vec![
        plate(random.within(-0.45, -0.25), random.within(-0.1, 0.1)),
        plate(random.within(0.25, 0.45), random.within(-0.1, 0.1)),
    ];
    if with_bowl {
        let bowl = thing("bowl", random.within(-0.6, 0.6), random.within(-0.05, 0.05));
        things.push(Thing { size: Vector3::new(0.10, 0.10, 0.05), ..bowl });
    }
    for plate_idx in 0..2 {
        if random.next().is_multiple_of(2) {
            let angle = random.within(0.0, std::f64::consts::TAU);
            let place = things[plate_idx].foot + 0.17 * Vector3::new(angle.cos(), angle.sin(), 0.0);
            things.push(Thing { foot: place, ..thing("mug", 0.0, 0.0) });
        }
    }
    if random.next().is_multiple_of(2) {
        things.push(Thing { foot: anywhere(random), ..thing("mug", 0.0, 0.0) });
    }
    things
}
