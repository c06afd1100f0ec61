//! One client connection: requests in order, answers in order, waits overlapping.
//!
//! ```text
//!  socket -> Frames -> header, guard -> produce? yes: begin (appends, in order) -> queue of waits --\
//!                                                no : the queue, alone                              |
//!  socket <- vectored write <---------- answers in request order <--- only the front is polled <----/
//! ```
//!
//! A request that is not `Produce` starts when everything before it is answered, and nothing behind it starts before
//! its answer: what Kafka does with every request. Produce requests append one after the other and wait together.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use common::net::TcpStream;
use futures::future::BoxFuture;
use protocol::{ApiKey, frame};
use tokio::net::tcp::WriteHalf;

use super::frames::{Frame, FrameError, Frames, Limits, Room};
use super::output;
use crate::Context;
use crate::api::{self, Begun, Header, Request, Response};
use crate::metrics::Metrics;

/// Answers a connection may wait for at a time; at the bound it is not read from.
const PIPELINE_MAX: usize = 64;
/// Bytes of ready answers gathered into one write.
const GATHER_BYTES_MAX: u64 = 1 << 20;

/// How a connection ended.
pub(crate) enum Ended {
    /// The client closed it, or it was idle too long, or the broker stops.
    Quietly(&'static str),
    /// The socket failed.
    Socket(io::Error),
    /// The client sent what cannot be served.
    Broken(String),
}

impl Ended {
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quietly(why) => f.write_str(why),
            Self::Socket(error) => error.fmt(f),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// A request whose answer is awaited.
struct Waiting {
    header: Header,
    since: Duration,
    answer: Begun,
}

/// A produce request whose batches are being checked and appended.
struct Beginning {
    header: Header,
    since: Duration,
    begin: BoxFuture<'static, Begun>,
}

/// What a frame turned into.
enum Turn {
    Answered,
    Begun(Begun),
    Frame(Option<Frame>),
    Stop,
    Idle,
}

pub(crate) struct Connection {
    ctx: Arc<Context>,
    peer: SocketAddr,
    frames: Frames,
    queue: VecDeque<Waiting>,
    beginning: Option<Beginning>,
    /// A request in the queue that nothing may overtake.
    alone: bool,
    draining: bool,
    /// Batches were appended and not yet sent on their way to the disk: more of them are here already.
    unkicked: bool,
}

impl Connection {
    pub(crate) fn new(ctx: Arc<Context>, peer: SocketAddr, limits: Limits) -> Self {
        let frames = Frames::new(limits, ctx.metrics.clone());
        let queue = VecDeque::new();
        Self {
            ctx,
            peer,
            frames,
            queue,
            beginning: None,
            alone: false,
            draining: false,
            unkicked: false,
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.ctx.metrics
    }

    /// Serves until the client leaves, breaks the rules, or the broker drains.
    pub(crate) async fn run(mut self, stream: &mut TcpStream) -> Ended {
        let ended = self.serve(stream).await;
        self.kick();
        match ended {
            Ok(ended) | Err(ended) => ended,
        }
    }

    /// Sends what was appended on its way to the disk.
    fn kick(&mut self) {
        if std::mem::take(&mut self.unkicked) {
            self.ctx.partitions.kick();
        }
    }

    async fn serve(&mut self, stream: &mut TcpStream) -> Result<Ended, Ended> {
        let (reader, mut writer) = stream.split();
        let stop = self.ctx.shutdown.clone();
        let idle = Duration::from_millis(self.ctx.settings.server.idle_ms);
        let mut ready = Vec::new();
        loop {
            let busy = !self.queue.is_empty() || self.beginning.is_some();
            if self.draining && !busy {
                return Ok(Ended::Quietly("the broker stops"));
            }
            let may_read = !self.draining
                && !self.alone
                && self.beginning.is_none()
                && self.queue.len() < PIPELINE_MAX;
            // Requests that came together go to the disk together.
            if self.beginning.is_none() && !(may_read && self.frames.has_next()) {
                self.kick();
            }
            let (queue, beginning, frames) =
                (&mut self.queue, &mut self.beginning, &mut self.frames);
            let (unkicked, partitions) = (&mut self.unkicked, &self.ctx.partitions);
            let turn = tokio::select! {
                biased;
                () = front_answers(queue, &mut ready), if !queue.is_empty() => Turn::Answered,
                begun = begin(beginning), if beginning.is_some() => Turn::Begun(begun),
                frame = frames.next(&reader), if may_read => Turn::Frame(frame.map_err(frame_end)?),
                () = stop.cancelled(), if !self.draining => Turn::Stop,
                () = tokio::time::sleep(idle), if !busy => Turn::Idle,
                () = kick_and_wait(unkicked, partitions) => continue,
            };
            match turn {
                Turn::Answered => self.answer(&mut writer, &mut ready).await?,
                Turn::Begun(answer) => {
                    self.unkicked = true;
                    if let Some(Beginning { header, since, .. }) = self.beginning.take() {
                        self.queue.push_back(Waiting { header, since, answer });
                    }
                }
                Turn::Frame(Some(frame)) => self.dispatch(frame)?,
                Turn::Frame(None) => return Ok(Ended::Quietly("closed by the client")),
                Turn::Stop => self.draining = true,
                Turn::Idle if self.frames.midway() => {
                    return Err(Ended::Broken("no progress inside a frame".to_owned()));
                }
                Turn::Idle => return Ok(Ended::Quietly("idle for connections.max.idle.ms")),
            }
        }
    }

    fn dispatch(&mut self, frame: Frame) -> Result<(), Ended> {
        let since = self.ctx.clock.elapsed();
        let decoded = match frame::decode(&frame.bytes) {
            Ok(decoded) => decoded,
            Err(frame::RequestError::UnsupportedVersion {
                key: ApiKey::ApiVersions,
                correlation_id,
                ..
            }) => {
                let key = ApiKey::ApiVersions;
                let header = Header { key, version: 0, correlation_id, client_id: None };
                let answer: Begun = Box::pin(std::future::ready(api::unsupported_api_versions()));
                self.alone = true;
                self.queue.push_back(Waiting { header, since, answer });
                return Ok(());
            }
            Err(error) => return Err(Ended::Broken(error.to_string())),
        };
        let frame::Request { key, version, correlation_id, client_id, body } = decoded;
        let header = Header { key, version, correlation_id, client_id };
        let ctx = Arc::clone(&self.ctx);
        let request = Request { header: header.clone(), body, peer: self.peer };
        if header.key == ApiKey::Produce {
            let begin = Box::pin(append(ctx, request, frame.room));
            self.beginning = Some(Beginning { header, since, begin });
        } else {
            let room = frame.room;
            let answer = Box::pin(async move {
                let answer = api::handle(&ctx, request).await;
                drop(room);
                answer
            });
            self.alone = true;
            self.queue.push_back(Waiting { header, since, answer });
        }
        Ok(())
    }

    /// Writes the answers that are ready, in request order.
    async fn answer(
        &mut self,
        writer: &mut WriteHalf<'_>,
        ready: &mut Vec<(Header, Duration, Response)>,
    ) -> Result<(), Ended> {
        let mut out: VecDeque<Bytes> = VecDeque::new();
        let mut written = Vec::with_capacity(ready.len());
        let mut bytes = 0;
        let (mut close, mut held) = (None, Vec::new());
        for (header, since, response) in ready.drain(..) {
            match response {
                Response::Body(body) => bytes += output::framed(&header, body, &mut out),
                Response::Counted(body, room) => {
                    bytes += output::framed(&header, body, &mut out);
                    held.push(room);
                }
                Response::Nothing => {}
                Response::Close(why) => {
                    close = Some(why);
                    break;
                }
            }
            written.push((header.key, since));
        }
        self.alone = self.alone && !self.queue.is_empty();
        output::write(writer, &mut out).await.map_err(Ended::Socket)?;
        drop(held);
        self.ctx.metrics.sent(bytes);
        let now = self.ctx.clock.elapsed();
        for (key, since) in written {
            self.ctx.metrics.answered(key, now.saturating_sub(since));
        }
        close.map_or(Ok(()), |why| Err(Ended::Broken(why)))
    }
}

/// Appends the batches of a produce request; its buffer is free when this is done.
async fn append(ctx: Arc<Context>, request: Request, room: Room) -> Begun {
    let begun = api::begin_produce(&ctx, request).await;
    drop(room);
    begun
}

fn frame_end(error: FrameError) -> Ended {
    match error {
        FrameError::Io(error) => Ended::Socket(error),
        FrameError::Truncated => Ended::Quietly("closed by the client inside a frame"),
        FrameError::Length { .. } | FrameError::Stalled { .. } => Ended::Broken(error.to_string()),
    }
}

/// Comes to its turn only when everything else has to wait; never ends.
async fn kick_and_wait(unkicked: &mut bool, partitions: &partition::Partitions) {
    if std::mem::take(unkicked) {
        partitions.kick();
    }
    std::future::pending().await
}

async fn begin(beginning: &mut Option<Beginning>) -> Begun {
    match beginning {
        Some(beginning) => beginning.begin.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Waits for the answer at the front and takes with it the ready ones right behind. Cancel safe: what is taken off the
/// queue is in `ready`, and it is ready at once.
async fn front_answers(
    queue: &mut VecDeque<Waiting>,
    ready: &mut Vec<(Header, Duration, Response)>,
) {
    std::future::poll_fn(|cx| {
        let mut bytes = 0;
        while let Some(front) = queue.front_mut() {
            let Poll::Ready(response) = Pin::new(&mut front.answer).poll(cx) else { break };
            let Some(Waiting { header, since, .. }) = queue.pop_front() else { break };
            if let Response::Body(parts) | Response::Counted(parts, _) = &response {
                bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            }
            ready.push((header, since, response));
            if bytes >= GATHER_BYTES_MAX {
                break;
            }
        }
        if ready.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}
