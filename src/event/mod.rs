//! What a sink's config says of an event's content: whether the sink gets it ([`when`]), and what of it ([`mask`]).
//!
//! Pure functions over an event. `when` never changes an event, and what it cannot decide it says so, in words that quote nothing of
//! the event. `mask` never lets a masked value through by another door: attributes, the bytes received and what the normaliser set
//! aside under `extra` are masked with it. Neither recurses on the depth of a body, nor changes a value that it was not told to.

pub mod mask;
mod path;
mod values;
pub mod when;

pub use mask::{Mask, Method};
pub use path::{MaskPath, PathError};
pub use when::When;
