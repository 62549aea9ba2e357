//! The only home of libc, nix and rustix calls: one file per kernel facility, each returning `io::Result`.
