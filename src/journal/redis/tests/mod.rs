//! Against real servers.

mod support;
mod conforms;
mod faults;
mod fails_over;
mod shares;
mod promises;
mod model;
mod inspects;
