//! DescribeConfigs: values, where they came from, and what they override.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::errors::Failure;
use super::{Request, Response};
use crate::Context;
use crate::dynamic::{self, Key, Layers, Source, Synonym};

/// Kafka's numbers of resource types.
pub(crate) mod resource {
    pub(crate) const TOPIC: i8 = 2;
    pub(crate) const BROKER: i8 = 4;
    pub(crate) const GROUP: i8 = 32;
}

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: DescribeConfigsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let shape = Shape { synonyms: body.include_synonyms, docs: body.include_documentation };
    let results = body.resources.iter().map(|resource| {
        let mut result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(ctx, resource, shape) {
            Ok(configs) => result.configs = configs,
            Err(failure) => {
                ctx.metrics.failed(ApiKey::DescribeConfigs, failure.code);
                result.error_code = failure.code.code();
                result.error_message = Some(StrBytes::from_string(failure.message));
            }
        }
        result
    });
    let mut response = DescribeConfigsResponse::default();
    response.results = results.collect();
    request.answer(&response)
}

#[derive(Clone, Copy)]
struct Shape {
    synonyms: bool,
    docs: bool,
}

fn describe(
    ctx: &Context,
    resource: &DescribeConfigsResource,
    shape: Shape,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    let image = ctx.meta.image();
    let name = resource.resource_name.as_str();
    let wanted = |key: &Key| {
        let keys = resource.configuration_keys.as_ref();
        keys.is_none_or(|keys| keys.iter().any(|wanted| wanted.as_str() == key.name))
    };
    match resource.resource_type {
        resource::TOPIC => {
            protocol::check_topic_name(name).map_err(|error| {
                Failure::new(ErrorCode::InvalidTopicException, error.to_string())
            })?;
            let topic = image.topic(name).ok_or_else(|| {
                let why = "This server does not host this topic-partition.";
                Failure::new(ErrorCode::UnknownTopicOrPartition, why)
            })?;
            let layers = Layers::of(&image, ctx.node, &ctx.settings, Some(&topic.configs));
            let keys = dynamic::TOPIC_KEYS.iter().filter(|key| wanted(key));
            Ok(keys.map(|key| shown(key, layers.topic_values(key), shape)).collect())
        }
        resource::BROKER => {
            let layers = Layers::of(&image, ctx.node, &ctx.settings, None);
            let keys = dynamic::broker_keys().filter(|key| wanted(key));
            if name.is_empty() {
                // The cluster's dynamic defaults: only what is set.
                let default = Source::DynamicDefault;
                let set = keys.filter_map(|key| {
                    let mut values = layers.broker_values(key);
                    values.retain(|value| value.source == default);
                    (!values.is_empty()).then(|| shown(key, values, shape))
                });
                return Ok(set.collect());
            }
            if name.parse() != Ok(ctx.node.0) {
                let why =
                    format!("Unexpected broker id, expected {} but received {name}", ctx.node);
                return Err(Failure::new(ErrorCode::InvalidRequest, why));
            }
            Ok(keys.map(|key| shown(key, layers.broker_values(key), shape)).collect())
        }
        resource::GROUP => {
            let configs = image.group_configs.get(name);
            let values = configs.into_iter().flatten().map(|(key, value)| {
                DescribeConfigsResourceResult::default()
                    .with_name(StrBytes::from_string(key.clone()))
                    .with_value(Some(StrBytes::from_string(value.clone())))
                    .with_config_source(Source::Group as i8)
            });
            Ok(values.collect())
        }
        other => {
            let why = format!("Unsupported resource type: {other}");
            Err(Failure::new(ErrorCode::InvalidRequest, why))
        }
    }
}

fn shown(key: &Key, values: Vec<Synonym>, shape: Shape) -> DescribeConfigsResourceResult {
    let first = values.first();
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(key.name))
        .with_value(first.map(|value| StrBytes::from_string(value.value.clone())))
        .with_read_only(key.read_only)
        .with_config_source(first.map_or(Source::Default, |value| value.source) as i8)
        .with_config_type(key.kind.code())
        .with_documentation(None);
    if shape.docs {
        result.documentation = Some(StrBytes::from_static_str(key.doc));
    }
    if shape.synonyms {
        result.synonyms = values
            .into_iter()
            .map(|value| {
                DescribeConfigsSynonym::default()
                    .with_name(StrBytes::from_string(value.name))
                    .with_value(Some(StrBytes::from_string(value.value)))
                    .with_source(value.source as i8)
            })
            .collect();
    }
    result
}
