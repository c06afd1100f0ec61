//! What can be typed.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};

pub mod bench;

/// A Kafka-compatible broker that keeps its log in object storage and writes it out as Parquet.
#[derive(Parser)]
#[command(
    name = "sluice",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Start a broker:      sluice serve\n\
                  Create a topic:      sluice topic create flights --partitions 6\n\
                  Land it as Parquet:  sluice sink create flights --topic flights --format parquet --value json\n\
                  Prove what landed:   sluice sink verify flights"
)]
pub struct Args {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a broker.
    Serve(Serve),
    /// Create, list, describe, grow and delete topics.
    #[command(subcommand)]
    Topic(Topic),
    /// List, describe and delete consumer groups.
    #[command(subcommand)]
    Group(Group),
    /// Create, list, describe, verify and delete sinks.
    #[command(subcommand)]
    Sink(Sink),
    /// Act on brokers.
    #[command(subcommand)]
    Broker(Broker),
    /// Look into the write-ahead log.
    #[command(subcommand)]
    Wal(Wal),
    /// Look into objects.
    #[command(subcommand)]
    Object(Object),
    /// Look into metadata.
    #[command(subcommand)]
    Meta(Meta),
    /// Show the settings and where each came from.
    #[command(subcommand)]
    Config(Config),
    /// Measure a broker, or the machine.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print the version.
    #[command(after_help = "Example: sluice version -o json")]
    Version,
    /// Print shell completions.
    #[command(after_help = "Example: sluice completions bash > /etc/bash_completion.d/sluice")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Flags that override settings.
#[derive(Arguments, Clone, Debug, Default)]
pub struct SettingFlags {
    /// Settings file; default ./sluice.toml when it exists.
    #[arg(long, env = "SLUICE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Data directory.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Address of the Kafka listener, host:port; port 0 chooses one.
    #[arg(long)]
    pub listen: Option<String>,
    /// Address that clients are told, host or host:port.
    #[arg(long)]
    pub advertise: Option<String>,
    /// Address of the HTTP listener, host:port; port 0 chooses one.
    #[arg(long)]
    pub http_listen: Option<String>,
    /// Object store, s3://bucket/prefix; default: objects/ of the data directory.
    #[arg(long)]
    pub object_store: Option<String>,
    /// Memory budget, such as 256MiB.
    #[arg(long)]
    pub memory_max: Option<String>,
    /// Any setting, as KEY=VALUE; `sluice config show` lists the keys.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Arguments)]
#[command(
    after_help = "Example: sluice serve --data-dir /var/lib/sluice --listen 0.0.0.0:9092 --advertise kafka.example:9092\n\
                  Example: sluice serve --object-store s3://bucket/prefix --set upload.age.max=5s"
)]
pub struct Serve {
    #[command(flatten)]
    pub settings: SettingFlags,
}

/// Where a broker is reached by clients.
#[derive(Arguments, Clone, Debug)]
pub struct Bootstrap {
    /// A broker, host:port.
    #[arg(long, env = "SLUICE_BOOTSTRAP_SERVER", default_value = "127.0.0.1:9092")]
    pub bootstrap_server: String,
}

/// Where a broker is reached for administration.
#[derive(Arguments, Clone, Debug)]
pub struct Http {
    /// The broker's HTTP listener, host:port.
    #[arg(long, env = "SLUICE_HTTP", default_value = "127.0.0.1:9600")]
    pub http: String,
}

#[derive(Subcommand)]
pub enum Topic {
    /// Create a topic.
    #[command(
        after_help = "Example: sluice topic create flights --partitions 6 --config retention.ms=86400000"
    )]
    Create {
        /// Its name.
        name: String,
        /// Number of partitions; default: the broker's.
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        partitions: i32,
        /// Replication factor to show; durability does not depend on it.
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        replication_factor: i16,
        /// A topic setting, as KEY=VALUE.
        #[arg(long = "config", value_name = "KEY=VALUE")]
        configs: Vec<String>,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// List topics.
    #[command(after_help = "Example: sluice topic list -o json")]
    List {
        /// The broker's own topics too.
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Partitions, leaders and offsets of a topic, and its settings that are not defaults.
    #[command(after_help = "Example: sluice topic describe flights")]
    Describe {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Add partitions to a topic.
    #[command(after_help = "Example: sluice topic grow flights --partitions 12")]
    Grow {
        /// Its name.
        name: String,
        /// Number of partitions afterwards.
        #[arg(long)]
        partitions: i32,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Delete a topic and its records. Files of sinks stay.
    #[command(after_help = "Example: sluice topic delete flights")]
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: Bootstrap,
    },
}

#[derive(Subcommand)]
pub enum Group {
    /// List consumer groups.
    #[command(after_help = "Example: sluice group list")]
    List {
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Members, committed offsets and lag of a group.
    #[command(after_help = "Example: sluice group describe readers")]
    Describe {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Delete an empty group and its offsets.
    #[command(after_help = "Example: sluice group delete readers")]
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: Bootstrap,
    },
}

#[derive(Subcommand)]
pub enum Sink {
    /// Create a sink: the records of a topic become files, each record exactly once.
    #[command(
        after_help = "Example: sluice sink create flights --topic flights --format parquet --value json --set rotate.interval.ms=60000"
    )]
    Create {
        /// Its name.
        name: String,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// Format of the files.
        #[arg(long, default_value = "parquet")]
        format: String,
        /// Format of the record values.
        #[arg(long, default_value = "json")]
        value: String,
        /// Where it begins: earliest, latest or an offset.
        #[arg(long, default_value = "earliest")]
        start: String,
        /// Any sink key, as KEY=VALUE.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        at: Http,
    },
    /// List sinks.
    #[command(after_help = "Example: sluice sink list")]
    List {
        #[command(flatten)]
        at: Http,
    },
    /// State, lag and boundary of a sink, by partition.
    #[command(after_help = "Example: sluice sink describe flights")]
    Describe {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: Http,
    },
    /// Prove from the bucket alone that every record stands in the files exactly once.
    ///
    /// Exit code 0: proved; 1: disproved; 3: could not be checked.
    #[command(after_help = "Example: sluice sink verify flights\n\
                      Example: sluice sink verify flights --object-store s3://bucket/prefix")]
    Verify(Verify),
    /// Remove a sink. Its files stay.
    #[command(after_help = "Example: sluice sink delete flights")]
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: Http,
    },
}

#[derive(Arguments)]
pub struct Verify {
    /// Its name.
    pub name: String,
    #[command(flatten)]
    pub store: StoreFlags,
    /// Prefix of the sink's keys; default: sinks/NAME of the cluster. Give "" for a bucket of its own.
    #[arg(long)]
    pub prefix: Option<String>,
    /// The sink's topics.dir.
    #[arg(long, default_value = "topics")]
    pub topics_dir: String,
}

/// Which store to read, without a broker.
#[derive(Arguments, Clone, Debug)]
pub struct StoreFlags {
    /// Data directory; its objects/ is the store unless --object-store says otherwise.
    #[arg(long, default_value = "./sluice-data")]
    pub data_dir: PathBuf,
    /// Object store, s3://bucket/prefix.
    #[arg(long)]
    pub object_store: Option<String>,
    /// The cluster, when the store holds several.
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Subcommand)]
pub enum Broker {
    /// Declare a write-ahead log lost: close it for ever, name what only it held, begin a new one. The broker is stopped.
    ///
    /// Without --yes nothing changes: the logs are shown, and from which offset on each partition would be lost.
    #[command(
        name = "wal-lost",
        after_help = "Example: sluice broker wal-lost --data-dir ./sluice-data\n\
                      Example: sluice broker wal-lost 281474976710657 --data-dir ./sluice-data --yes"
    )]
    WalLost {
        /// The log.
        id: Option<u64>,
        /// Data directory of the broker.
        #[arg(long, default_value = "./sluice-data")]
        data_dir: PathBuf,
        /// Declare it.
        #[arg(long, requires = "id")]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub enum Wal {
    /// Groups and frames of the log, read-only; also beside a running broker.
    #[command(after_help = "Example: sluice wal dump --data-dir ./sluice-data")]
    Dump {
        /// Data directory.
        #[arg(long, default_value = "./sluice-data")]
        data_dir: PathBuf,
        /// Only so many frames.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// The logs of the cluster as metadata knows them.
    #[command(after_help = "Example: sluice wal status")]
    Status {
        #[command(flatten)]
        at: Http,
    },
}

#[derive(Subcommand)]
pub enum Object {
    /// Objects as metadata knows them.
    #[command(after_help = "Example: sluice object list -o json")]
    List {
        #[command(flatten)]
        at: Http,
    },
    /// Which object holds an offset.
    #[command(after_help = "Example: sluice object locate flights 0 12345")]
    Locate {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        #[command(flatten)]
        at: Http,
    },
    /// Prove that the bucket holds what metadata says, and nothing else.
    ///
    /// Asks a running broker; with --data-dir it reads the metadata there itself, also beside a running broker.
    /// Exit code 0: proved; 1: disproved; 3: could not be checked.
    #[command(after_help = "Example: sluice object fsck\n\
                      Example: sluice object fsck --data-dir ./sluice-data --object-store s3://bucket/prefix")]
    Fsck {
        /// What waits for its delete longer than this is wrong.
        #[arg(long, default_value = "1h")]
        grace: common::Interval,
        /// Compare names and sizes only; do not read the index of each object.
        #[arg(long)]
        quick: bool,
        /// Data directory, to check without a broker.
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Object store, s3://bucket/prefix; default: objects/ of the data directory.
        #[arg(long, requires = "data_dir")]
        object_store: Option<String>,
        #[command(flatten)]
        at: Http,
    },
    /// Blocks of an object, every checksum checked, read-only.
    #[command(after_help = "Example: sluice object dump data/3f/000000000000000a")]
    Dump {
        /// Its key, whole or below the cluster's prefix.
        key: String,
        #[command(flatten)]
        store: StoreFlags,
    },
}

#[derive(Subcommand)]
pub enum Meta {
    /// Every key of the metadata state, read-only; also beside a running broker.
    #[command(after_help = "Example: sluice meta dump --data-dir ./sluice-data")]
    Dump(MetaDump),
    /// Restore a cluster from its bucket alone, as its next incarnation: the former one is fenced from then on.
    ///
    /// What was acknowledged and not uploaded is lost; every partition goes on behind a named lost range.
    #[command(
        after_help = "Example: sluice meta rebuild --object-store s3://bucket/prefix --data-dir ./sluice-new\n\
                      Example: sluice meta rebuild --object-store file:///mnt/objects --cluster ID --data-dir ./sluice-new"
    )]
    Rebuild {
        /// Object store, s3://bucket/prefix or file:///path.
        #[arg(long)]
        object_store: String,
        /// The cluster, when the store holds several.
        #[arg(long)]
        cluster: Option<String>,
        /// The new data directory; nothing may be there.
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Leader, applied index and checksum of the state of a running broker.
    #[command(after_help = "Example: sluice meta status")]
    Status {
        #[command(flatten)]
        at: Http,
    },
}

#[derive(Arguments)]
pub struct MetaDump {
    /// Data directory.
    #[arg(long, default_value = "./sluice-data")]
    pub data_dir: PathBuf,
    /// Only the summary.
    #[arg(long)]
    pub summary: bool,
}

#[derive(Subcommand)]
pub enum Config {
    /// Print each setting, its value and where it came from.
    #[command(after_help = "Example: sluice config show --config /etc/sluice.toml")]
    Show(SettingFlags),
}
