//! FindCoordinator: which broker leads the partition of the internal topic that owns a group. The first question creates
//! the topic.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::errors::Failure;
use super::{Request, Response};
use crate::Context;

/// First version that asks for several keys (KIP-699).
const KEYS_SINCE: i16 = 4;

/// What a key names.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Where a coordinator is.
struct Place {
    node: i32,
    host: String,
    port: i32,
}

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: FindCoordinatorRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    if request.header.version < KEYS_SINCE {
        return request.answer(&one_to_wire(find(ctx, body.key_type, body.key.as_str()).await));
    }
    let mut coordinators = Vec::with_capacity(body.coordinator_keys.len());
    for key in body.coordinator_keys {
        let found = find(ctx, body.key_type, key.as_str()).await;
        coordinators.push(many_to_wire(key, found));
    }
    request.answer(&FindCoordinatorResponse::default().with_coordinators(coordinators))
}

async fn find(ctx: &Context, key_type: i8, key: &str) -> Result<Place, Failure> {
    let found = match key_type {
        GROUP => find_group(ctx, key).await,
        TRANSACTION => {
            // A code that ends the producer's search at once; it shows the text to its user.
            let why = "this broker does not serve transactions yet";
            Err(Failure::new(ErrorCode::UnsupportedVersion, why))
        }
        other => {
            let why = format!("there is no coordinator of type {other}");
            Err(Failure::new(ErrorCode::InvalidRequest, why))
        }
    };
    if let Err(failure) = &found {
        ctx.metrics.failed(ApiKey::FindCoordinator, failure.code);
    }
    found
}

async fn find_group(ctx: &Context, group: &str) -> Result<Place, Failure> {
    let missing =
        || Failure::new(ErrorCode::CoordinatorNotAvailable, "The coordinator is not available.");
    if !ctx.groups.ensure_topic().await {
        return Err(missing());
    }
    let index = ctx.groups.partition_of(group).ok_or_else(missing)?;
    let image = ctx.meta.image();
    let topic = image.topic(coordinator::TOPIC).ok_or_else(missing)?;
    let index = usize::try_from(index).expect("32 bits fit");
    let leader = topic.partitions.get(index).and_then(|partition| partition.leader);
    let leader = leader.ok_or_else(missing)?;
    if leader == ctx.node {
        let (host, port) = ctx.advertised.clone();
        return Ok(Place { node: leader.0, host, port: i32::from(port) });
    }
    let broker = image.brokers.get(&leader).ok_or_else(missing)?;
    Ok(Place { node: leader.0, host: broker.host.clone(), port: i32::from(broker.port) })
}

fn one_to_wire(found: Result<Place, Failure>) -> FindCoordinatorResponse {
    match found {
        Ok(place) => FindCoordinatorResponse::default()
            .with_error_message(Some(StrBytes::from_static_str(ErrorCode::None.name())))
            .with_node_id(BrokerId(place.node))
            .with_host(StrBytes::from_string(place.host))
            .with_port(place.port),
        Err(failure) => FindCoordinatorResponse::default()
            .with_error_code(failure.code.code())
            .with_error_message(Some(StrBytes::from_string(failure.message)))
            .with_node_id(BrokerId(-1))
            .with_port(-1),
    }
}

fn many_to_wire(key: StrBytes, found: Result<Place, Failure>) -> Coordinator {
    match found {
        Ok(place) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(place.node))
            .with_host(StrBytes::from_string(place.host))
            .with_port(place.port)
            .with_error_message(Some(StrBytes::default())),
        Err(failure) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(failure.code.code())
            .with_error_message(Some(StrBytes::from_string(failure.message))),
    }
}
