//! Scripted scenarios by API, and random operations with crashes against invariants.

mod bench;
mod groups;
mod membership;
mod model;
mod offsets;
mod statics;
