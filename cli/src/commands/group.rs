//! `sluice group`.

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest,
    OffsetFetchRequest,
};
use protocol::StrBytes;
use serde_json::{Value, json};

use super::topic;
use crate::args::Group;
use crate::kafka::{Client, check};
use crate::output::Output;

pub async fn run(command: Group, out: &Output) -> anyhow::Result<()> {
    match command {
        Group::List { at } => list(&mut Client::connect(&at.bootstrap_server).await?, out).await,
        Group::Describe { name, at } => {
            let mut client = Client::connect(&at.bootstrap_server).await?;
            let mut coordinator = coordinator(&mut client, &name).await?;
            describe(&mut client, &mut coordinator, &name, out).await
        }
        Group::Delete { name, at } => {
            let mut client = Client::connect(&at.bootstrap_server).await?;
            let mut coordinator = coordinator(&mut client, &name).await?;
            delete(&mut coordinator, &name, out).await
        }
    }
}

fn group_id(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_owned()))
}

async fn coordinator(client: &mut Client, group: &str) -> anyhow::Result<Client> {
    let key = StrBytes::from_string(group.to_owned());
    let mut request = FindCoordinatorRequest::default();
    if client.version::<FindCoordinatorRequest>()? >= 4 {
        request.coordinator_keys = vec![key];
    } else {
        request.key = key;
    }
    let answer = client.ask(&request).await?;
    let (code, host, port) = match answer.coordinators.first() {
        Some(one) => (one.error_code, &one.host, one.port),
        None => (answer.error_code, &answer.host, answer.port),
    };
    check(code, None)?;
    Client::connect(&format!("{host}:{port}")).await
}

async fn list(client: &mut Client, out: &Output) -> anyhow::Result<()> {
    let answer = client.ask(&ListGroupsRequest::default()).await?;
    check(answer.error_code, None)?;
    let rows = answer.groups.iter().map(|group| {
        vec![
            Value::from(group.group_id.as_str()),
            Value::from(group.group_state.as_str()),
            Value::from(group.protocol_type.as_str()),
        ]
    });
    out.rows(&["group", "state", "protocol"], rows.collect());
    Ok(())
}

async fn describe(
    client: &mut Client,
    coordinator: &mut Client,
    name: &str,
    out: &Output,
) -> anyhow::Result<()> {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(name)]);
    let answer = coordinator.ask(&request).await?;
    let group = answer
        .groups
        .into_iter()
        .next()
        .ok_or_else(|| anyhow::anyhow!("the broker says nothing of group {name:?}"))?;
    check(group.error_code, group.error_message.as_deref())?;
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|member| {
            json!({
                "member": member.member_id.as_str(),
                "client": member.client_id.as_str(),
                "host": member.client_host.as_str(),
            })
        })
        .collect();
    let offsets = committed(client, coordinator, name).await?;
    if out.is_json() {
        out.json(&json!({
            "group": name,
            "state": group.group_state.as_str(),
            "protocol": group.protocol_data.as_str(),
            "members": members,
            "offsets": offsets.iter().map(|row| json!({
                "topic": row[0], "partition": row[1], "committed": row[2], "end": row[3],
                "lag": row[4],
            })).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    let state = group.group_state.as_str();
    out.line(format!("{name}  {state}  {} member(s)", group.members.len()));
    for member in &members {
        out.line(format!("  {} {} {}", member["member"], member["client"], member["host"]));
    }
    out.rows(&["topic", "partition", "committed", "end", "lag"], offsets);
    Ok(())
}

/// Rows of topic, partition, committed offset, end and lag.
async fn committed(
    client: &mut Client,
    coordinator: &mut Client,
    name: &str,
) -> anyhow::Result<Vec<Vec<Value>>> {
    let mut request = OffsetFetchRequest::default();
    if coordinator.version::<OffsetFetchRequest>()? >= 8 {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(name))
            .with_topics(None)
            .with_member_epoch(-1);
        request.groups = vec![group];
    } else {
        request.group_id = group_id(name);
        request.topics = None;
    }
    let answer = coordinator.ask(&request).await?;
    check(answer.error_code, None)?;
    let mut found: Vec<(String, i32, i64)> = Vec::new();
    for topic in &answer.topics {
        for one in &topic.partitions {
            found.push((topic.name.as_str().to_owned(), one.partition_index, one.committed_offset));
        }
    }
    for group in &answer.groups {
        check(group.error_code, None)?;
        for topic in &group.topics {
            for one in &topic.partitions {
                let name = topic.name.as_str().to_owned();
                found.push((name, one.partition_index, one.committed_offset));
            }
        }
    }
    let topics = client.metadata().await?.topics;
    let mut rows = Vec::new();
    for topic in &topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        if !found.iter().any(|(other, ..)| other == name) {
            continue;
        }
        let ends = topic::offsets(client, topic, -1).await?;
        for (one, end) in topic.partitions.iter().zip(ends) {
            let index = one.partition_index;
            let of = |(other, at, _): &&(String, i32, i64)| other == name && *at == index;
            let Some((_, _, offset)) = found.iter().find(of) else { continue };
            rows.push(vec![
                Value::from(name),
                Value::from(index),
                Value::from(*offset),
                Value::from(end),
                Value::from((end - offset).max(0)),
            ]);
        }
    }
    Ok(rows)
}

async fn delete(coordinator: &mut Client, name: &str, out: &Output) -> anyhow::Result<()> {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(name)]);
    for result in coordinator.ask(&request).await?.results {
        check(result.error_code, None)?;
    }
    out.line(format!("deleted group {name}"));
    if out.is_json() {
        out.json(&json!({ "group": name, "deleted": true }));
    }
    Ok(())
}
