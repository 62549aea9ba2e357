//! Members of a ring of many, killed or stopped after every single instruction: whatever the moment, the others go on at
//! once, and what the dead held comes back.

#[path = "../common/mod.rs"]
mod common;

mod armed;
mod closing;
mod consuming;
mod hall;
mod producing;
mod recovering;
mod stopping;
mod waiting;
