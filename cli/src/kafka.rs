//! A small Kafka client: one connection per broker, one request at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use common::net::TcpStream;
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::Request;
use protocol::client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest that a broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const CLIENT_ID: &str = "sluice-cli";

/// One connection.
pub struct Client {
    stream: TcpStream,
    address: String,
    next_id: i32,
    served: BTreeMap<i16, (i16, i16)>,
}

impl Client {
    /// Connects and asks what is served.
    #[expect(
        clippy::disallowed_methods,
        reason = "through the alias of the network that the ban asks for"
    )]
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(address))
            .await
            .map_err(|_| anyhow!("no answer within 10 s"))
            .and_then(|connected| Ok(connected?))
            .with_context(|| {
                format!("no broker at {address}; start one with `sluice serve` or name another with --bootstrap-server")
            })?;
        stream.set_nodelay(true)?;
        let served = BTreeMap::new();
        let mut client = Self { stream, address: address.to_owned(), next_id: 0, served };
        let answer = client.exchange(&ApiVersionsRequest::default(), 0).await?;
        for api in answer.api_keys {
            client.served.insert(api.api_key, (api.min_version, api.max_version));
        }
        Ok(client)
    }

    /// Sends `request` at the highest version both sides have.
    pub async fn ask<T: Request>(&mut self, request: &T) -> anyhow::Result<T::Response> {
        let version = self.version::<T>()?;
        self.exchange(request, version).await
    }

    /// The version that [`Self::ask`] uses.
    pub fn version<T: Request>(&self) -> anyhow::Result<i16> {
        let served = self.served.get(&T::KEY);
        served
            .and_then(|(min, max)| client::version_for::<T>(*min, *max))
            .ok_or_else(|| anyhow!("the broker at {} does not serve API {}", self.address, T::KEY))
    }

    async fn exchange<T: Request>(
        &mut self,
        request: &T,
        version: i16,
    ) -> anyhow::Result<T::Response> {
        self.next_id += 1;
        let frame = client::encode_request(request, version, self.next_id, CLIENT_ID)?;
        let answer = tokio::time::timeout(PATIENCE, self.round_trip(&frame))
            .await
            .map_err(|_| anyhow!("the broker at {} does not answer", self.address))??;
        Ok(client::decode_response::<T>(&answer, version, self.next_id)?)
    }

    async fn round_trip(&mut self, frame: &[u8]) -> anyhow::Result<Bytes> {
        let closed = || format!("the broker at {} closed the connection", self.address);
        self.stream.write_all(frame).await.with_context(closed)?;
        let size = self.stream.read_i32().await.with_context(closed)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > ANSWER_BYTES_MAX {
            bail!("{} does not speak Kafka's protocol", self.address);
        }
        let mut answer = vec![0; size];
        self.stream.read_exact(&mut answer).await.with_context(closed)?;
        Ok(answer.into())
    }

    /// Metadata of all topics.
    pub async fn metadata(&mut self) -> anyhow::Result<MetadataResponse> {
        self.ask(&MetadataRequest::default().with_topics(None)).await
    }
}

/// Turns an error code of a response into an error.
pub fn check(code: i16, message: Option<&str>) -> anyhow::Result<()> {
    if code == 0 {
        return Ok(());
    }
    let name = protocol::ErrorCode::from_code(code).map_or("UNKNOWN", protocol::ErrorCode::name);
    match message.filter(|text| !text.is_empty()) {
        Some(text) => bail!("{text} ({name})"),
        None => bail!("{name}"),
    }
}
