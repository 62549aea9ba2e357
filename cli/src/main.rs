//! The command line of ringway.
fn main() {}
