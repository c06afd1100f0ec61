//! DescribeCluster: id, brokers, controller.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use protocol::{ErrorCode, StrBytes};

use super::metadata::CLUSTER_OPERATIONS;
use super::{Request, Response};
use crate::Context;

/// Endpoints of brokers; 2 is those of controllers.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: DescribeClusterRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let mut response = DescribeClusterResponse::default();
    response.endpoint_type = BROKERS;
    if request.header.version >= 1 && body.endpoint_type != BROKERS {
        let code = match body.endpoint_type {
            CONTROLLERS => ErrorCode::MismatchedEndpointType,
            _ => ErrorCode::UnsupportedEndpointType,
        };
        ctx.metrics.failed(request.header.key, code);
        response.error_code = code.code();
        response.error_message = Some(StrBytes::from_static_str(
            "The request was sent to an endpoint of type BROKER; ask for brokers.",
        ));
        return request.answer(&response);
    }
    let image = ctx.meta.image();
    response.cluster_id = image
        .cluster
        .as_ref()
        .map(|cluster| StrBytes::from_string(cluster.id.clone()))
        .unwrap_or_default();
    response.controller_id = BrokerId(ctx.node.0);
    let broker = |broker: &meta::BrokerMeta| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.node.0))
            .with_host(StrBytes::from_string(broker.host.clone()))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.clone().map(StrBytes::from_string))
    };
    response.brokers = image.brokers.values().map(broker).collect();
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    request.answer(&response)
}
