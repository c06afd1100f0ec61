//! IncrementalAlterConfigs: set, delete, append, subtract single keys of a topic, a broker, the cluster or a group.

use std::collections::BTreeSet;

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use meta::Reply;
use meta::command::{ConfigOp, ConfigOpKind, ResourceKind};
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::describe_configs::resource;
use super::errors::{Failure, unexpected};
use super::{Request, Response};
use crate::Context;
use crate::dynamic::{self, Key, Kind};

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: IncrementalAlterConfigsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let mut seen = BTreeSet::new();
    let mut responses = Vec::with_capacity(body.resources.len());
    for resource in &body.resources {
        let unique = seen.insert((resource.resource_type, resource.resource_name.as_str()));
        let outcome = if unique {
            alter(ctx, resource, body.validate_only).await
        } else {
            let why = "Each resource must appear at most once.";
            Err(Failure::new(ErrorCode::InvalidRequest, why))
        };
        let mut answer = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(None);
        if let Err(failure) = outcome {
            ctx.metrics.failed(ApiKey::IncrementalAlterConfigs, failure.code);
            answer.error_code = failure.code.code();
            answer.error_message = Some(StrBytes::from_string(failure.message));
        }
        responses.push(answer);
    }
    let mut response = IncrementalAlterConfigsResponse::default();
    response.responses = responses;
    request.answer(&response)
}

async fn alter(
    ctx: &Context,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Failure> {
    let kind = kind_of(ctx, resource)?;
    let mut seen = BTreeSet::new();
    let mut ops = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        if !seen.insert(config.name.as_str()) {
            let why = format!("Error due to duplicate config keys : {}", config.name);
            return Err(Failure::new(ErrorCode::InvalidRequest, why));
        }
        ops.push(operation(kind, config)?);
    }
    let command = meta::command::AlterConfigs {
        kind: kind as i32,
        name: resource.resource_name.to_string(),
        ops,
        replace: false,
        validate_only,
    };
    match ctx.meta.propose(command).await? {
        Reply::ConfigsAltered => Ok(()),
        Reply::Rejected(reject) => Err(reject.into()),
        other => Err(unexpected(&other)),
    }
}

fn kind_of(ctx: &Context, resource: &AlterConfigsResource) -> Result<ResourceKind, Failure> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        resource::TOPIC if name.is_empty() => {
            let why = "Default topic resources are not allowed.";
            Err(Failure::new(ErrorCode::InvalidRequest, why))
        }
        resource::TOPIC if ctx.meta.image().topic(name).is_none() => {
            let why = format!("The topic '{name}' does not exist.");
            Err(Failure::new(ErrorCode::UnknownTopicOrPartition, why))
        }
        resource::TOPIC => Ok(ResourceKind::Topic),
        resource::BROKER if !name.is_empty() && name.parse() != Ok(ctx.node.0) => {
            let why = format!("Unexpected broker id, expected {} but received {name}", ctx.node);
            Err(Failure::new(ErrorCode::InvalidRequest, why))
        }
        resource::BROKER => Ok(ResourceKind::Broker),
        other => {
            let why = format!("Unsupported resource type: {other}");
            Err(Failure::new(ErrorCode::InvalidRequest, why))
        }
    }
}

fn operation(kind: ResourceKind, config: &AlterableConfig) -> Result<ConfigOp, Failure> {
    let name = config.name.as_str();
    let invalid = |why: String| Failure::new(ErrorCode::InvalidConfig, why);
    let refused = |why: String| Failure::new(ErrorCode::InvalidRequest, why);
    let op = match config.config_operation {
        0 => ConfigOpKind::Set,
        1 => ConfigOpKind::Delete,
        2 => ConfigOpKind::Append,
        3 => ConfigOpKind::Subtract,
        other => {
            return Err(refused(format!("Unknown operation {other} for configuration {name}")));
        }
    };
    let key: &Key = match kind {
        ResourceKind::Broker => dynamic::broker_key(name).map_err(invalid)?,
        ResourceKind::Topic | ResourceKind::Group | ResourceKind::Unknown => {
            dynamic::topic_key(name).map_err(invalid)?
        }
    };
    if key.read_only {
        let why = format!("Cannot update {name} dynamically: set it in sluice.toml and restart");
        return Err(refused(why));
    }
    let value = config.value.as_ref().map(ToString::to_string);
    let mut base = None;
    match op {
        ConfigOpKind::Delete => {}
        ConfigOpKind::Set => {
            let text = value.as_deref().ok_or_else(|| {
                refused(format!("Null value not supported for configuration {name}"))
            })?;
            dynamic::check(key, text).map_err(invalid)?;
        }
        ConfigOpKind::Append | ConfigOpKind::Subtract => {
            if !matches!(key.kind, Kind::List(_)) {
                return Err(invalid(format!(
                    "Can't {} to configuration {name} because its type is not list.",
                    if op == ConfigOpKind::Append { "APPEND" } else { "SUBTRACT" }
                )));
            }
            let text = value.as_deref().ok_or_else(|| {
                refused(format!("Null value not supported for configuration {name}"))
            })?;
            dynamic::check(key, text).map_err(invalid)?;
            base = Some(key.default.to_owned());
        }
    }
    Ok(ConfigOp { key: name.to_owned(), op: op as i32, value, base })
}
