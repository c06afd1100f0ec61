//! How voters reach each other.

use futures::future::BoxFuture;

/// Carries raft's messages between voters. May lose, delay, duplicate and reorder them.
pub trait Transport: Send + 'static {
    /// Sends to voter `to`, without waiting; may drop the message.
    fn send(&mut self, to: u64, message: Vec<u8>);

    /// The next message for this voter. Cancel safe. Pending for ever when there is none to come.
    fn receive(&mut self) -> BoxFuture<'_, Vec<u8>>;
}

/// The transport of a single voter: nobody to talk to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Transport for Alone {
    fn send(&mut self, _to: u64, _message: Vec<u8>) {}

    fn receive(&mut self) -> BoxFuture<'_, Vec<u8>> {
        Box::pin(std::future::pending())
    }
}
