//! The machine against a hub in memory, over a connection that is cut anywhere.

mod closing;
mod groups;
mod leases;
mod publishing;
mod random;
mod returning;
mod sessions;
mod streams;
mod world;
