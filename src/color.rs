//! The colors of things, by name: the basic color terms of Berlin and Kay (1969).

use serde::{Deserialize, Serialize};

/// What color a person would call an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Color {
    Red,
    Green,
    Blue,
    Yellow,
    Orange,
    Purple,
    Pink,
    White,
    Black,
    Brown,
    Gray,
}

impl Color {
    /// Every color.
    pub const ALL: [Self; 11] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Orange,
        Self::Purple,
        Self::Pink,
        Self::White,
        Self::Black,
        Self::Brown,
        Self::Gray,
    ];

    /// The plain English adjective.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Orange => "orange",
            Self::Purple => "purple",
            Self::Pink => "pink",
            Self::White => "white",
            Self::Black => "black",
            Self::Brown => "brown",
            Self::Gray => "gray",
        }
    }
}
