//! What can be typed after `sluice bench`.

use std::path::PathBuf;

use clap::{Args as Arguments, Subcommand};

use super::Bootstrap;

#[derive(Subcommand)]
pub enum Bench {
    /// Replay pre-encoded batches against any Kafka broker.
    ///
    /// A batch is built once; per request only the correlation id and the partition differ, so that the client costs
    /// next to nothing. Without --rate each connection keeps --in-flight requests under way (closed loop, full speed).
    /// With --rate requests are sent at fixed times whatever the broker does (open loop), and latency counts from the
    /// time a request was meant to be sent, so that a stall is charged to every request it held back.
    ///
    /// Exit code 0: every request was acknowledged; 1: some were not.
    #[command(
        after_help = "Example: sluice bench produce load --create --partitions 16 --batch-bytes 1000000 --seconds 20\n\
                      Example: sluice bench produce load --partitions 16 --batch-records 1 --rate 1000 --seconds 30 -o json"
    )]
    Produce(Produce),
    /// Read a topic at full speed without decoding records.
    ///
    /// Ends at the log end as it was at the start, or after --seconds or --bytes.
    #[command(after_help = "Example: sluice bench fetch load --connections 4\n\
                      Example: sluice bench fetch load --check-crc --seconds 30 --repeat")]
    Fetch(Fetch),
    /// Produce at a fixed rate and read from the tail: time from the meant send to the receipt.
    #[command(
        after_help = "Example: sluice bench latency load --create --partitions 16 --rate 1000 --batch-records 1 --seconds 20"
    )]
    Latency(Latency),
    /// The machine's own limits: synced writes, loopback TCP, memory copy, CRC-32C.
    #[command(after_help = "Example: sluice bench machine --dir /var/lib/sluice -o json")]
    Machine(Machine),
}

/// Shape of the load, the same for all that produce.
#[derive(Arguments, Clone, Debug)]
pub struct Load {
    /// Size of a batch before compression, such as 16KiB or 1000000.
    #[arg(long, value_parser = bytes, default_value = "16KiB", conflicts_with = "batch_records")]
    pub batch_bytes: u64,
    /// Number of records in a batch, in place of --batch-bytes.
    #[arg(long)]
    pub batch_records: Option<u32>,
    /// Size of a record's value.
    #[arg(long, value_parser = bytes, default_value = "1KiB")]
    pub record_bytes: u64,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none")]
    pub compression: String,
    /// Acknowledgement: all (-1), 1 or 0.
    #[arg(long, default_value = "all", allow_hyphen_values = true)]
    pub acks: String,
}

/// The topic that is written, and where.
#[derive(Arguments, Clone, Debug)]
pub struct Into {
    /// The topic.
    pub topic: String,
    /// Create the topic first when it is not there.
    #[arg(long)]
    pub create: bool,
    /// Number of partitions to create and to use, from 0 on; default: all the topic has.
    #[arg(long)]
    pub partitions: Option<u32>,
    #[command(flatten)]
    pub at: Bootstrap,
}

#[derive(Arguments, Clone, Debug)]
pub struct Produce {
    #[command(flatten)]
    pub topic: Into,
    #[command(flatten)]
    pub load: Load,
    /// Connections, shared out over the partitions.
    #[arg(long, default_value_t = 4)]
    pub connections: u32,
    /// Requests under way on a connection.
    #[arg(long, default_value_t = 5)]
    pub in_flight: u32,
    /// Partitions in one request, a batch for each.
    #[arg(long, default_value_t = 1)]
    pub partitions_per_request: u32,
    /// Requests a second over all connections (open loop); default: as fast as answers come (closed loop).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds before, that are not.
    #[arg(long, default_value_t = 0.0)]
    pub warmup: f64,
    /// End after so many bytes of record values instead of --seconds.
    #[arg(long, value_parser = bytes)]
    pub bytes: Option<u64>,
    /// Threads that carry the connections.
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
}

#[derive(Arguments, Clone, Debug)]
pub struct Fetch {
    /// The topic.
    pub topic: String,
    /// Number of partitions to read, from 0 on; default: all.
    #[arg(long)]
    pub partitions: Option<u32>,
    #[command(flatten)]
    pub at: Bootstrap,
    /// Where to begin: earliest, latest or an offset.
    #[arg(long, default_value = "earliest")]
    pub from: String,
    /// Connections; each reads partitions of its own.
    #[arg(long, default_value_t = 4)]
    pub connections: u32,
    /// Most bytes of an answer.
    #[arg(long, value_parser = bytes, default_value = "4MiB")]
    pub max_bytes: u64,
    /// Most bytes of one partition in an answer.
    #[arg(long, value_parser = bytes, default_value = "1MiB")]
    pub partition_max_bytes: u64,
    /// Check the CRC of every batch.
    #[arg(long)]
    pub check_crc: bool,
    /// Begin again at the end, until --seconds or --bytes are over.
    #[arg(long)]
    pub repeat: bool,
    /// End after so many seconds.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// End after so many bytes.
    #[arg(long, value_parser = bytes)]
    pub bytes: Option<u64>,
    /// Threads that carry the connections.
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
}

#[derive(Arguments, Clone, Debug)]
pub struct Latency {
    #[command(flatten)]
    pub topic: Into,
    #[command(flatten)]
    pub load: Load,
    /// Connections that produce.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Requests a second over all connections.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// Requests under way on a connection.
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds before, that are not.
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
}

#[derive(Arguments, Clone, Debug)]
pub struct Machine {
    /// Directory on the disk to measure; a file of 256 MiB is made there and removed.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Seconds for each figure.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Sizes of synced writes, multiples of 4 KiB.
    #[arg(long, value_parser = bytes, value_delimiter = ',', default_values = ["4KiB", "64KiB", "1MiB"])]
    pub sizes: Vec<u64>,
    /// Synced writes under way at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    pub in_flight: Vec<u32>,
}

/// `16KiB`, or a plain number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    if let Ok(plain) = text.parse() {
        return Ok(plain);
    }
    text.parse::<common::ByteSize>().map(|size| size.0).map_err(|error| error.to_string())
}
