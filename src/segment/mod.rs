//! Shared memory as RAII values.
