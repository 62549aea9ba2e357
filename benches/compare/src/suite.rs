//! What is measured together.

use ringway_harness::Row;

use crate::{
    figures::Figure,
    rows::{Key, Who},
};

/// A column of the table of rows: its title, and whose results are in it.
pub type Column = (&'static str, &'static [Who]);

/// Rows and figures that belong together.
pub struct Suite {
    /// All rows.
    pub keys: fn() -> Vec<Key>,
    /// How to measure one of them.
    pub row: fn(Key) -> Row<Key>,
    /// All figures.
    pub figures: &'static [Figure],
    /// How the rows are shown.
    pub columns: &'static [Column],
}
