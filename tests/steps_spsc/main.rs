//! The two of a ring, killed after every single instruction of leaving, waiting and waking, or stopped after each of sending and
//! receiving: the other one is woken and told, and goes on.

#[path = "../common/mod.rs"]
mod common;

mod armed;
mod leaving;
mod pair;
mod stopping;
mod waiting;
