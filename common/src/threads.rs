//! Threads of our own, named, started in one place.

use std::io;
use std::thread::JoinHandle;

/// Starts a named thread. The caller owns the handle and joins it at shutdown.
///
/// # Errors
/// When the operating system refuses another thread.
#[expect(clippy::disallowed_methods, reason = "the seam itself")]
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}
