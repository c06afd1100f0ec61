//! The network, under one name, so that a simulation can put its own in the place of the kernel's.

pub use tokio::net::{TcpListener, TcpStream, lookup_host};
