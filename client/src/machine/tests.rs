//! The machine against a hub in memory, over a connection that is cut anywhere.

mod closing;
mod groups;
mod publishing;
mod random;
mod sessions;
mod streams;
mod world;
