//! The Kafka listener.
//!
//! Tasks: one per connection, owned by the listener task, which is owned by `Running`; all end at shutdown after their
//! requests in flight are answered, at the latest after [`DRAIN_MAX`].

mod buffers;
mod connection;
mod frames;
mod output;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::Shutdown;
use common::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::Context;
pub(crate) use buffers::Buffers;
use connection::Connection;
use frames::Limits;

/// Longest that shutdown waits for requests in flight.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often buffers that nobody used are given back.
const TRIM_EVERY: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listener on `address`.
///
/// # Errors
/// The port is in use, or the address is not one of this machine.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until `ctx.shutdown`, then waits for them.
pub(crate) async fn run(listener: TcpListener, ctx: Arc<Context>) {
    let connections_max =
        usize::try_from(ctx.settings.server.connections_max).unwrap_or(usize::MAX);
    let slots = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let frame_bytes_max = ctx.settings.server.request_bytes_max;
    let limits = Limits { frame_bytes_max, budgets: ctx.budgets.clone() };
    let tasks = TaskTracker::new();
    let stop = ctx.shutdown.clone();
    while let Some((stream, peer)) = accept(&listener, &stop, &ctx.budgets.buffers).await {
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            ctx.metrics.refused();
            warn!(%peer, "connection refused, max.connections is reached");
            continue;
        };
        let connection = Connection::new(Arc::clone(&ctx), peer, limits.clone());
        tasks.spawn(async move {
            serve(connection, stream, peer).await;
            drop(slot);
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN_MAX, tasks.wait()).await.is_err() {
        warn!(connections = tasks.len(), "connections still busy, closing them");
    }
}

async fn accept(
    listener: &TcpListener,
    stop: &Shutdown,
    buffers: &Buffers,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
            () = tokio::time::sleep(TRIM_EVERY) => {
                buffers.trim();
                continue;
            }
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(connection: Connection, mut stream: TcpStream, peer: SocketAddr) {
    let metrics = connection.metrics().clone();
    metrics.opened();
    let _ = stream.set_nodelay(true);
    let ended = connection.run(&mut stream).await;
    metrics.closed(ended.is_broken());
    debug!(%peer, %ended, "connection ended");
}
