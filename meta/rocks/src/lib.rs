//! meta-rocks
