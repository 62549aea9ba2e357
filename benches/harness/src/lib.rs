//! How ringway measures.
